impl Go for A {
    pub async fn go(&self) {}
}
