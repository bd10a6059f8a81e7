// A value that views watch. Whoever changes it gives a new value; the old one is never changed.

import { useLayoutEffect, useReducer } from "./vendor/preact.js";

export function makeStore(value) {
  const watchers = new Set();
  return {
    get: () => value,
    /** `change`: the fields that change, or a function from the old value to the new one. */
    set(change) {
      value = typeof change === "function" ? change(value) : { ...value, ...change };
      for (const watcher of [...watchers]) watcher();
    },
    watch(watcher) {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
  };
}

/** The value of `store`; the component is drawn again when it changes. */
export function useStore(store) {
  const [, draw] = useReducer((n) => n + 1, 0);
  useLayoutEffect(() => store.watch(draw), [store]);
  return store.get();
}
