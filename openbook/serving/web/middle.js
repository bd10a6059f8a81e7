// What is in the middle of a view stays there while the view or what it shows changes its size.

import { useLayoutEffect, useRef } from "./vendor/preact.js";

const box = (element) => element.getBoundingClientRect();
const centre = ({ left, top, width, height }) => [left + width / 2, top + height / 2];

/**
 * The current mark in `pane` goes to its middle if it was in view, else the point of `.sheet` that was in the middle.
 * Returns {look, hold}: call `look` when something else is shown, and `hold` after a change of size.
 */
export function useMiddle(pane, marks) {
  const kept = useRef(null); // {isMark} or {share: [x, y] of the sheet}
  const markOf = () => pane.current.querySelector(`${marks}.current`) ?? pane.current.querySelector(marks);
  const look = () => {
    const [mark, sheet, view] = [markOf(), pane.current.querySelector(".sheet"), box(pane.current)];
    const at = mark && box(mark);
    const isMark = Boolean(at) && at.bottom > view.top && at.top < view.bottom && at.right > view.left && at.left < view.right;
    const [x, y] = centre(view);
    kept.current = isMark ? { isMark } : sheet ? { share: [(x - box(sheet).left) / box(sheet).width, (y - box(sheet).top) / box(sheet).height] } : null;
  };
  const hold = () => {
    if (!kept.current || !pane.current.clientHeight) return;
    const { isMark, share } = kept.current;
    const target = isMark ? markOf() : pane.current.querySelector(".sheet");
    if (!target) return;
    const { left, top, width, height } = box(target);
    const [x, y] = isMark ? centre(box(target)) : [left + share[0] * width, top + share[1] * height];
    const [middleX, middleY] = centre(box(pane.current));
    pane.current.scrollBy({ left: x - middleX, top: y - middleY, behavior: "instant" });
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
