"""What is shown of an answer before it is complete."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from openbook.serving.streaming import event


@given(st.text())
def test_text_can_neither_end_an_event_nor_begin_one(text: str) -> None:
    data = event({"content": text})
    assert data.endswith(b"\n\n")
    assert data.startswith(b"data: ")
    assert not {b"\n", b"\r"} & {data[i : i + 1] for i in range(len(data) - 2)}
    assert json.loads(data[len("data: ") :]) == {"content": text}
