import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooling import EmptySpanError, Span, SpanRangeError, VisionMarkerError, vision_span, whole
from tests.pooling.oracle import examples

START, END, PAD = 151652, 151653, 151655


def image_span(token_ids: list[int]) -> Span | None:
    return vision_span(token_ids, vision_start_id=START, vision_end_id=END)


plain = st.lists(st.integers(0, 151642), max_size=20)


@examples
@given(head=plain, num_image_tokens=st.integers(0, 50), tail=plain)
def test_an_image_spans_both_markers_and_nothing_of_the_template(head, num_image_tokens, tail):
    span = image_span([*head, START, *[PAD] * num_image_tokens, END, *tail])
    assert span == Span(len(head), len(head) + num_image_tokens + 2)


@examples
@given(token_ids=plain)
def test_a_sequence_without_vision_start_is_a_text(token_ids):
    assert image_span(token_ids) is None
    assert image_span([*token_ids, END]) is None


@pytest.mark.parametrize(
    ("token_ids", "message"),
    [
        ([1, START, PAD], "got 1 vision_start (id 151652) and 0 vision_end (id 151653)"),
        ([START, END, START, END], "got 2 vision_start (id 151652) and 2 vision_end"),
        ([START, START, END], "got 2 vision_start (id 151652) and 1 vision_end"),
        ([START, END, END], "got 1 vision_start (id 151652) and 2 vision_end"),
        ([7, END, PAD, START], "got vision_end at token 1 before vision_start at token 3"),
    ],
)
def test_markers_that_do_not_make_one_image_are_refused_with_their_counts(token_ids, message):
    with pytest.raises(VisionMarkerError, match=re.escape(message)):
        image_span(token_ids)


@examples
@given(num_tokens=st.integers(1, 40_000))
def test_a_text_spans_every_token(num_tokens):
    span = whole(num_tokens)
    assert (span.start, span.stop, span.num_tokens) == (0, num_tokens, num_tokens)


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (5, 4)])
def test_a_span_without_tokens_is_refused(start, stop):
    with pytest.raises(EmptySpanError, match=f"got start={start}, stop={stop}"):
        Span(start, stop)


def test_a_text_without_tokens_is_refused():
    with pytest.raises(EmptySpanError, match="Zero tokens have no mean"):
        whole(0)


def test_a_span_that_counts_from_the_tail_is_refused():
    with pytest.raises(SpanRangeError, match="got start=-1"):
        Span(-1, 3)
