package a
type S struct {
}
func go(x int) {
}
