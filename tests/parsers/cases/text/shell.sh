go() {
  ls
}
