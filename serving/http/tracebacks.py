"""An unexpected error told without anything it holds: types, modules, functions and line numbers.

No message, value or file path: any of them may hold an input.
"""

from types import TracebackType

OUR_PACKAGES = ("merge_tools", "polyvec", "pooling", "serving")
MAX_ERRORS = 5
MAX_FRAMES = 5


def is_ours(module: str) -> bool:
    """Whether a module or logger of this name is polyvec's."""
    return module.partition(".")[0] in OUR_PACKAGES


def describe(error: BaseException) -> list[str]:
    """`error`, then what caused it: `TYPE in MODULE.FUNCTION:LINE < CALLER ...`, innermost frames first."""
    described: list[str] = []
    seen: set[int] = set()
    pending: BaseException | None = error
    while pending is not None and id(pending) not in seen and len(described) < MAX_ERRORS:
        seen.add(id(pending))
        described.append(_describe_one(pending))
        if isinstance(pending, BaseExceptionGroup):
            pending = pending.exceptions[0]
        elif pending.__cause__ is not None or pending.__suppress_context__:
            pending = pending.__cause__
        else:
            pending = pending.__context__
    return described


def _describe_one(error: BaseException) -> str:
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    frames = _frames(error.__traceback__)
    return f"{name} in {' < '.join(frames)}" if frames else name


def _frames(traceback: TracebackType | None) -> list[str]:
    """Where it was raised, whoever's code that is, and the innermost frames of ours around it."""
    ours: list[str] = []
    innermost: str | None = None
    while traceback is not None:
        frame = traceback.tb_frame
        module = str(frame.f_globals.get("__name__", "?"))
        innermost = f"{module}.{frame.f_code.co_qualname}:{traceback.tb_lineno}"
        if is_ours(module):
            ours.append(innermost)
        traceback = traceback.tb_next
    frames = ours[: -MAX_FRAMES - 1 : -1]
    if innermost is not None and (not frames or frames[0] != innermost):
        frames.insert(0, innermost)
    return frames
