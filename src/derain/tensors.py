"""Reading tensors out of untrusted files, and writing files of this project.

Formats: safetensors; PyTorch files old (consecutive pickles) and new (zip), always through the
restricted unpickler (`weights_only=True`), so no code in a file can run. Nor can a file demand
much more memory than its own size: compressed files, views that repeat their values and dictionaries
that refer to each other are refused or bounded before they are used.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from derain.atomic import replace_file
from derain.errors import DerainError, reason
from derain.paths import exists, is_file, is_folder

# Keys of the weights in files of training codes, in order of preference. Averaged weights, whose key
# contains "ema", come before raw ones, as in the published test scripts.
NESTS = (
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "generator",
    "weights",
)
# Counters that training codes store beside the weights.
STEPS = ("step", "clock", "iter", "iteration", "global_step", "epoch")
# Prefixes of names from data-parallel and Lightning training, averaging and pairs of networks.
PREFIXES = ("module.", "model.", "net.", "network.", "ema_model.", "generator.", "net_g.", "netG.", "G.")
# Those of several networks in one file: averages before the weights they average.
SIDE_BY_SIDE = ("ema_model.", "model_ema.", "ema.", "generator.", "net_g.", "netG.", "G.", *PREFIXES[:4])
MOST_PARTS = 40  # that are looked at
# Prefixes of wrapped modules, anywhere in a name.
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# Prefixes of networks that only the loss needs, from Lightning training.
LOSS_NETWORKS = ("loss_per.",)
# Other entries among the weights, from weight averaging and profilers.
LEFTOVERS = ("n_averaged", "initted", "total_ops", "total_params")
KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
COUNTERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
PROTOCOL = 3  # of pickle, the newest that PyTorch opens without running code
MOST_INSTRUCTIONS = 3_000_000  # of the pickles of a file, which are carried out one by one in Python
DICTIONARIES = 1000  # that are looked into
REPEATS = 4  # how often, on average, a number in a file may be shared by tensors


class _Skipped:
    """Stands for what training codes store beside weights: accepts any arguments and keeps nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _dictionary(*_: object) -> dict[Any, Any]:
    """Stands for a dictionary with defaults."""
    return {}


def _list(*_: object) -> list[Any]:
    """Stands for a queue."""
    return []


# Harmless types of options, numbers and times; `_Skipped` stands for each.
_SKIPPED = (
    *("argparse.Namespace", "torch.torch_version.TorchVersion", "decimal.Decimal", "uuid.UUID"),
    *(f"pathlib.{name}" for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")),
    *("pathlib._local.PosixPath", "pathlib._local.WindowsPath"),  # Python 3.13
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"builtins.{name}" for name in ("list", "dict", "tuple", "int", "float", "str", "bool")),
    *("builtins.frozenset", "builtins.slice", "numpy.ndarray", "numpy.dtype"),
    # The module's name changed with NumPy 2.
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.dtypes.{sign}Int{bits}DType" for sign in ("", "U") for bits in (8, 16, 32, 64)),
    *(f"numpy.dtypes.{name}DType" for name in ("Bool", "Float16", "Float32", "Float64")),
)
_HARMLESS: list[Any] = [
    *((_Skipped, name) for name in _SKIPPED),
    (_dictionary, "collections.defaultdict"),
    (_list, "collections.deque"),
]
# Functions that PyTorch allows and that can fill the memory: one makes as many bytes as it is asked
# for, which no weights need; one makes bytes of text, and with these codecs ever more bytes of bytes, or
# takes very long.
_GROWING = "builtins.bytearray"
_ENCODE = "_codecs.encode"
_GROWING_CODECS = {
    *("hex", "hex_codec", "base64", "base_64", "base64_codec", "uu", "uu_codec", "idna", "punycode"),
    *("quopri", "quopri_codec", "quoted_printable", "quotedprintable"),
}


@dataclass(frozen=True)
class Tensors:
    """The content of a file: a flat state dict, where it was, and other facts.

    Attributes:
        state: {name: tensor} on the CPU, without the prefixes of training codes.
        nest: the dotted key under which the state dict was, "" at the top.
        facts: numbers and texts found beside it (training step, our metadata).
    """

    state: dict[str, Tensor]
    nest: str
    facts: dict[str, Any]


def read_tensors(path: str | Path) -> Tensors:
    """The state dict of a checkpoint file.

    Raises:
        DerainError: the file cannot be read, is not a checkpoint, or holds anything but tensors,
            numbers and texts (then nothing of it was executed).
    """
    path = Path(path)
    if is_folder(path):
        raise DerainError(f"{path}: is a folder; a checkpoint file is needed.")
    if exists(path) and not is_file(path):
        raise DerainError(f"{path}: is not a regular file; a checkpoint file is needed.")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({reason(error)}).") from None
    if not head:
        raise DerainError(f"{path}: the file is empty.")
    if len(head) > 8 and head[8:9] == b"{":
        return _read_safetensors(path)
    if not head.startswith((b"PK", b"\x80")):  # a zip, or the first byte of every pickle by torch.save
        raise DerainError(f"{path}: not a checkpoint; only PyTorch's files and safetensors are read.")
    return _read_torch(path)


def _read_safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {_shown(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DerainError(f"{path}: a damaged safetensors file ({_first_line(error)}).") from None
    try:
        facts = json.loads(metadata.get("derain", "{}"))
    except (ValueError, RecursionError):
        facts = {}
    facts = facts if isinstance(facts, dict) else {}
    state = _usable(state, path)
    # A file that names its network is of this project, and its names are the network's own.
    return Tensors(state if "network" in facts else _without_prefix(state), "", facts)


def _read_torch(path: Path) -> Tensors:
    _refuse_compressed(path)
    _refuse_growth(path)
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about harmless oddities in a file
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler raises anything on broken bytes
        if "TorchScript" in str(error):
            raise DerainError(
                f"{path}: a TorchScript file, which is a program; give the checkpoint that it was made from."
            ) from None
        wanted = _more_than_tensors(path, str(error))
        if wanted:
            raise DerainError(
                f"{path}: refused, because besides tensors it asks for {wanted}, which could run code. "
                "Ask its author for a file with tensors only."
            ) from None
        protocol = next((value for name, value in _constants(path) if name == "PROTO"), None)
        if isinstance(protocol, int) and protocol > PROTOCOL:
            raise DerainError(
                f"{path}: written with pickle protocol {protocol}, which PyTorch cannot open without running "
                "what is in it; ask its author for safetensors, or for torch.save's usual protocol."
            ) from None
        raise DerainError(f"{path}: not a checkpoint, or damaged ({_first_line(error)}).") from None
    if isinstance(content, list | tuple):
        content = dict(enumerate(content))
    if isinstance(content, torch.nn.Module) or not isinstance(content, Mapping):
        raise DerainError(f"{path}: holds {type(content).__name__}, not a dictionary of tensors.")
    nest, state = _find_state(content)
    if not state:
        raise DerainError(f"{path}: no named tensors found; the first keys are {_first_keys(content)}.")
    facts = {key: content[key] for key in STEPS if isinstance(content.get(key), int | float)}
    return Tensors(_without_prefix(_usable(state, path)), nest, facts)


def _refuse_compressed(path: Path) -> None:
    """PyTorch never compresses; a file that does could unpack to any size. Nor is every zip a checkpoint."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            unpacked = sum(entry.file_size for entry in file.infolist())
            is_checkpoint = any(entry.filename.endswith("data.pkl") for entry in file.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DerainError(f"{path}: not a checkpoint, or damaged ({_first_line(error)}).") from None
    if not is_checkpoint and path.suffix.lower() == ".dtmodel":
        raise DerainError(f"{path}: a package for darktable; give the weights that it was made from instead.")
    if not is_checkpoint:
        raise DerainError(f"{path}: a zip file without a checkpoint in it.")
    if unpacked > path.stat().st_size:
        raise DerainError(f"{path}: is compressed, as PyTorch's files never are; unpack and save it again.")


def _refuse_growth(path: Path) -> None:
    """Refuses a file of too many instructions, or with a function that makes far more bytes than it has."""
    named, texts = set[str](), set[str]()
    for count, (instruction, value) in enumerate(_constants(path)):
        if count == MOST_INSTRUCTIONS:
            raise DerainError(f"{path}: refused, because its pickles hold over {count:,} instructions.")
        if instruction == "GLOBAL":
            named.add(str(value).replace(" ", ".").replace("__builtin__", "builtins"))
        elif isinstance(value, str | bytes):
            text = value if isinstance(value, str) else value.decode("latin-1")
            texts.add(re.sub(r"[^a-z0-9]+", "_", text[:40].lower()))
    asked = [_GROWING] if _GROWING in named else []
    asked += [f"{_ENCODE} with {codec}" for codec in sorted(_GROWING_CODECS & texts) if _ENCODE in named]
    if asked:
        raise DerainError(f"{path}: refused, because it asks for {asked[0]}, which could fill the memory.")


def _constants(path: Path) -> Iterator[tuple[str, object]]:
    """(instruction, what is written behind it) of all pickles in a file.

    Raises:
        DerainError: it is a zip that cannot be read.
    """
    for file in _pickles(path):
        with suppress(Exception):  # broken: reading it will say so
            for instruction, value, _ in pickletools.genops(file):
                yield instruction.name, value


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            file.seek(0)
            # A number, the version, the system, and the content, one behind the other.
            yield from 4 * [file]
            return
    try:
        with zipfile.ZipFile(path) as archive:
            contents = [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
    except Exception as error:  # whatever broken bytes provoke
        raise DerainError(f"{path}: not a checkpoint, or damaged ({_first_line(error)}).") from None
    yield from map(io.BytesIO, contents)


def _more_than_tensors(path: Path, message: str) -> str:
    """The types or functions that a file asks for and that are refused, as a list in words, or ""."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an old format, or broken
        names = re.findall(r"GLOBAL ([\w.]+)", message) or _foreign_names(path)
    return ", ".join(name[:80] for name in sorted(names)[:3])


def _foreign_names(path: Path) -> list[str]:
    """What the pickles of a file name that is neither PyTorch's nor a plain container."""
    named, texts = [], [""]
    for instruction, value in _constants(path):
        if isinstance(value, str):
            texts = [texts[-1], value]
        if instruction == "GLOBAL":
            named.append(_shown(str(value).replace(" ", ".")))
        elif instruction == "STACK_GLOBAL":
            named.append(_shown(".".join(texts)))
    return [name for name in named if not name.startswith(("torch.", "collections."))]


def _find_state(content: Mapping[Any, Any]) -> tuple[str, dict[str, Tensor]]:
    """The state dict inside nested dictionaries: at the top, else under a customary key, else
    under the first key that has one. Single numbers beside a dictionary are a training code's notes, and
    tensors without a dot in any name belong to an optimizer, unless there are no others.
    Every dictionary is searched once, whatever refers to it."""
    seen = {id(content)}
    waiting: list[tuple[str, Mapping[Any, Any]]] = [("", content)]
    without_dots: tuple[str, dict[str, Tensor]] = "", {}
    while waiting and len(seen) <= DICTIONARIES:
        nest, here = waiting.pop()
        tensors = {_shown(key): value for key, value in here.items() if isinstance(value, Tensor)}
        children = {_shown(key): value for key, value in here.items() if isinstance(value, Mapping)}
        if any(tensor.ndim for tensor in tensors.values()) or (tensors and not children):
            if any("." in name for name in tensors):
                return nest, tensors
            without_dots = without_dots if without_dots[1] else (nest, tensors)
        averaged = [key for key in children if "ema" in re.split(r"[\W_]+", key.lower())]
        customary = [key for key in NESTS if key in children]
        others = [key for key in children if not key.startswith("opt")]
        for key in reversed(dict.fromkeys([*averaged, *customary, *others])):
            if id(children[key]) not in seen:
                seen.add(id(children[key]))
                waiting.append((f"{nest}.{key}" if nest else key, children[key]))
    return without_dots


def _shown(key: Any) -> str:
    """The name of a tensor or dictionary, in one line that is safe on a terminal."""
    name = str(key)
    return name if name.isprintable() else name.encode("unicode_escape", "surrogatepass").decode()


def _usable(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors, without the entries of averaging and profilers.

    Raises:
        DerainError: a tensor is not a plain array of numbers, or they need far more memory than the file.
    """
    state = {name: tensor for name, tensor in state.items() if name.rpartition(".")[2] not in LEFTOVERS}
    for name, tensor in state.items():
        problem = _problem(tensor)
        if problem:
            raise DerainError(f"{path}: {name} {problem}; plain tensors are needed.")
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state.values()}
    most = REPEATS * min(sum(stored.values()), path.stat().st_size)
    if sum(t.numel() * t.element_size() for t in state.values()) > most:
        raise DerainError(f"{path}: its tensors share so few numbers that they would fill far more memory.")
    return state


def _problem(tensor: Tensor) -> str:
    if tensor.layout is not torch.strided:
        return "is sparse"
    if tensor.is_quantized:
        return "is quantized"
    if tensor.device.type != "cpu":
        return f"holds no values (device {tensor.device.type})"
    if tensor.dtype not in (*KINDS, *COUNTERS):
        return f"is of type {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "repeats its values"
    return ""


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Removes the prefixes of training codes from all names, and the tensors of loss networks."""
    for wrapper in WRAPPERS:
        state = {name.replace(wrapper, ""): tensor for name, tensor in state.items()}
    inside = {name: tensor for name, tensor in state.items() if not name.startswith(LOSS_NETWORKS)}
    for prefix in _prefixes(inside):
        inside = state = {name.removeprefix(prefix): tensor for name, tensor in inside.items()}
    return state


def parts(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The networks in a state dict that contains several, by preference, without their prefixes; last,
    whatever shares the first part of its names."""
    first = dict.fromkeys(f"{name.partition('.')[0]}." for name in state if "." in name)
    for prefix in list(dict.fromkeys([*SIDE_BY_SIDE, *first]))[:MOST_PARTS]:
        part = {n.removeprefix(prefix): tensor for n, tensor in state.items() if n.startswith(prefix)}
        if part:
            yield _without_prefix(part)


def _prefixes(state: Mapping[str, Tensor]) -> Iterator[str]:
    """The common prefixes of all names, from the outside in."""
    names = list(state)
    while prefix := next((p for p in PREFIXES if names and all(n.startswith(p) for n in names)), None):
        yield prefix
        names = [name.removeprefix(prefix) for name in names]


def _first_keys(content: Mapping[Any, Any], count: int = 5) -> str:
    keys = [_shown(key)[:60] for key in list(content)[:count]]
    return ", ".join(keys) + (", ..." if len(content) > count else "") if keys else "none"


def _first_line(error: BaseException) -> str:
    # Before this, PyTorch explains how to run what is in the file.
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip().splitlines()
    return text[0][:160] if text else type(error).__name__


def save_checkpoint(path: str | Path, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes weights as safetensors, whole or not at all.

    Args:
        path: replaced atomically if it exists.
        state: the network's state dict.
        facts: JSON-serialisable; usually `network`, `config`, `step`, `note`.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    replace_file(path, save(tensors, metadata={"derain": json.dumps(dict(facts), sort_keys=True)}))
