export class A<T> {
  go() {}
}
function g() {}
