"""The machine code of a compiled function: its hottest loop, and how much of it is arithmetic.

What a loop costs beside its arithmetic can be read off its instructions: a number that is fetched for every
multiplication, or a sum that found no register and goes to the stack and back. Understood are x86 in AT&T's spelling
and 64-bit Arm in LLVM's and Apple's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any, NamedTuple

from tinytorch.acceleration.compiled import need_numba

_LABEL = re.compile(r"^([.\w$]+):")
_COMMENT = re.compile(r"\s*(?:#[# ]|//|;).*")  # not #16, a number on Arm
_JUMP = re.compile(r"j\w+|b|b\.?(?:eq|ne|hs|lo|cs|cc|mi|pl|hi|ls|ge|lt|gt|le)|cbn?z|tbn?z")
_X86_VECTOR = re.compile(r"%([xyz])mm")
_X86_PRODUCT = re.compile(r"v?(?:mul|(?P<fused>fn?m(?:add|sub)\d*))(?P<kind>[ps])(?P<size>[sd])")
_ARM_PRODUCT = re.compile(r"(?P<fused>fml[as]|fn?m(?:add|sub))|fn?mul")
_ARM_LANES = re.compile(r"\.(\d+)[sd]\b")
_ARM_REGISTER = re.compile(r"\b[sdqv]\d+")


class _Instruction(NamedTuple):
    """What one instruction does with numbers: `lanes` is 0 where it does not multiply."""

    lanes: int = 0
    fused: bool = False
    loads: int = 0
    stores: int = 0
    on_stack: bool = False


@dataclass(frozen=True)
class InnerLoop:
    """A loop that holds no other one, and what its instructions do with floating-point numbers.

    Attributes
    ----------
    lines
        The label and the instructions, the jump back being the last.
    lanes
        How many numbers its widest multiplication multiplies at once.
    products
        Multiplications so wide; `fused` of them add as well, in the same instruction.
    loads, stores
        Vectors, or single numbers, that come from memory or go there, as instructions of their own or as operands of
        others.
    spills
        Those loads and stores that go to the stack: of values for which there was no register.
    """

    lines: tuple[str, ...]
    lanes: int
    products: int
    fused: int
    loads: int
    stores: int
    spills: int

    def __str__(self) -> str:
        return "\n".join(self.lines)


def hottest_loop(function: Callable[..., Any], *arguments: Any) -> InnerLoop:
    """Compile a function for arguments like these, and return its innermost loop that multiplies the most.

    Parameters
    ----------
    function
        Of Numba's: a dispatcher. It is compiled anew, since code that comes from the cache cannot be looked at, and it
        is not called.
    arguments
        Examples: their types matter, not their values.

    Raises
    ------
    ModuleNotFoundError
        If Numba is not installed.
    TypeError
        If the function is not one of Numba's.
    ValueError
        If none of its loops multiplies floating-point numbers.
    """
    need_numba("looking at machine code")
    import numba

    try:
        source, options = function.py_func, function.targetoptions  # type: ignore[attr-defined]
    except AttributeError:
        raise TypeError(f"{function!r} is not compiled by Numba: pass what numba.njit or jit returned") from None
    copy = FunctionType(source.__code__, source.__globals__, source.__name__, source.__defaults__, source.__closure__)
    copy.__module__ = __name__.rpartition(".")[2]  # `jit` announces what it compiles for tinytorch to keep; not this
    fresh = numba.jit(**options)(copy)
    fresh.compile(tuple(map(numba.typeof, arguments)))
    (assembly,) = fresh.inspect_asm().values()
    loops = [loop for loop in inner_loops(assembly) if loop.products]
    if not loops:
        raise ValueError(f"{source.__name__} has no loop that multiplies floating-point numbers")
    return max(loops, key=lambda loop: loop.lanes * loop.products)


def inner_loops(assembly: str) -> Iterator[InnerLoop]:
    """Yield the loops of an assembly text that hold no other loop, in their order."""
    lines = [line for text in assembly.splitlines() if (line := _COMMENT.sub("", text).strip())]
    places = {label[1]: at for at, line in enumerate(lines) if (label := _LABEL.match(line))}
    ends: dict[int, int] = {}
    for at, line in enumerate(lines):
        mnemonic, _, operands = line.partition("\t")
        start = places.get(operands.split(",")[-1].strip(), at + 1)
        if _JUMP.fullmatch(mnemonic) and start <= at:
            ends[start] = at
    for start, end in ends.items():
        if not any(start < other <= end for other in ends):
            code = [line for line in lines[start : end + 1] if line[0] != "." or _LABEL.match(line)]
            yield _describe(code)


def _describe(code: list[str]) -> InnerLoop:
    done = [_x86(line) if "%" in line else _arm(line) for line in code[1:]]
    widest = max((step.lanes for step in done), default=0)
    products = [step for step in done if step.lanes == widest > 0]
    moved = [step.loads + step.stores for step in done if step.on_stack]
    label, *instructions = (line.replace("\t", "  ") for line in code)
    return InnerLoop(
        lines=(label, *(f"    {line}" for line in instructions)),
        lanes=widest,
        products=len(products),
        fused=sum(step.fused for step in products),
        loads=sum(step.loads for step in done),
        stores=sum(step.stores for step in done),
        spills=sum(moved),
    )


def _operands(text: str) -> list[str]:
    """Split at the commas that stand outside of brackets of any kind."""
    return [part.strip() for part in re.split(r",(?![^(\[{]*[)\]}])", text) if part.strip()]


def _x86(line: str) -> _Instruction:
    """Read `mnemonic source, source, target`; an operand in parentheses is in memory."""
    mnemonic, _, text = line.partition("\t")
    widths = _X86_VECTOR.findall(text)
    if not widths:
        return _Instruction()
    *sources, target = _operands(text)
    product = _X86_PRODUCT.fullmatch(mnemonic)
    lanes = 0
    if product:
        size = {"s": 4, "d": 8}[product["size"]]
        lanes = {"x": 16, "y": 32, "z": 64}[max(widths)] // size if product["kind"] == "p" else 1
    loads, store = sum("(" in operand for operand in sources), "(" in target
    return _Instruction(lanes, bool(product and product["fused"]), loads, int(store), "(%rsp" in text)


def _arm(line: str) -> _Instruction:
    """Read `mnemonic target, source, source`; what is in square brackets is an address, or a lane of a vector."""
    mnemonic, _, text = line.partition("\t")
    name = mnemonic.partition(".")[0]
    if product := _ARM_PRODUCT.fullmatch(name):
        counts = _ARM_LANES.findall(f"{mnemonic} {text}")
        return _Instruction(max(map(int, counts), default=1), bool(product["fused"]))
    moved = len(_ARM_REGISTER.findall(text.partition("[")[0]))
    if not moved or name[:2] not in ("ld", "st"):
        return _Instruction()
    loads = moved if name.startswith("ld") else 0
    return _Instruction(loads=loads, stores=moved - loads, on_stack="[sp" in text)
