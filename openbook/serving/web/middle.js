// What is in the middle of a view stays there while the view or what it shows changes its size.

import { useLayoutEffect, useRef } from "./vendor/preact.js";

/**
 * The current mark in `pane` goes to its middle if it was in view, else what was in the middle.
 * Returns {look, hold}: call `look` when something else is shown, and `hold` after a change of size.
 */
export function useMiddle(pane, marks) {
  const middle = useRef(null); // as shares of all that can be scrolled to; null: the mark
  const markOf = () => pane.current.querySelector(`${marks}.current`) ?? pane.current.querySelector(marks);
  const look = () => {
    const { scrollLeft, scrollTop, scrollWidth, scrollHeight, clientWidth, clientHeight } = pane.current;
    const [at, view] = [markOf()?.getBoundingClientRect(), pane.current.getBoundingClientRect()];
    const isMark = at && at.bottom > view.top && at.top < view.bottom && at.right > view.left && at.left < view.right;
    middle.current = isMark ? null : [(scrollLeft + clientWidth / 2) / scrollWidth, (scrollTop + clientHeight / 2) / scrollHeight];
  };
  const hold = () => {
    if (!pane.current.clientHeight) return;
    const { scrollWidth, scrollHeight, clientWidth, clientHeight } = pane.current;
    if (!middle.current) markOf()?.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
    else pane.current.scrollTo({ left: middle.current[0] * scrollWidth - clientWidth / 2, top: middle.current[1] * scrollHeight - clientHeight / 2, behavior: "instant" });
  };
  useLayoutEffect(() => {
    const resized = new ResizeObserver(hold);
    resized.observe(pane.current);
    const { current } = pane;
    current.addEventListener("scroll", look, { passive: true });
    return () => {
      resized.disconnect();
      current.removeEventListener("scroll", look);
    };
  }, []);
  return { look, hold };
}
