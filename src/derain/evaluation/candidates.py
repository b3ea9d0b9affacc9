"""What is compared: networks of this project, other networks, and finished results."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from derain.checkpoints import list_models
from derain.data.pairing import best_pairing, pictures_below
from derain.errors import DerainError, UsageError, last_line, reason, refuse_unknown
from derain.evaluation.cases import Case
from derain.extras import extra
from derain.nn.padding import pad_to_multiple
from derain.own_code import own_function
from derain.paths import is_file

if TYPE_CHECKING:
    from derain.restore import Derainer, Settings

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
UNCHANGED = "input unchanged"  # the candidate that does nothing, for scores of the rainy pictures themselves


@dataclass(frozen=True)
class Candidate:
    """Something that restores pictures, or has restored them.

    Attributes:
        name: a folder name; unique in an evaluation.
        restore: maps (1, 3, H, W) float32 RGB in [0, 1] to the same, on the CPU. None where the results
            are `finished`.
        identity: what the result depends on (hash of the weights, settings).
        method: the name of the network and size, by which its published figures are found; "" for a
            size that was not published.
        parameters: the number of its parameters; None where unknown.
        multiply_adds: returns those for one picture of a given height and width; None where unknown.
        finished: result files by the names of their cases.
        device: the device on which it computes, and whose memory is measured.
        precision: the precision in which it computes; "" where unknown.
    """

    name: str
    restore: Callable[[Tensor], Tensor] | None
    identity: str = ""
    method: str = ""
    parameters: int | None = None
    multiply_adds: Callable[[int, int], int] | None = None
    finished: Mapping[str, Path] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = ""


def input_unchanged(cases: Sequence[Case]) -> Candidate:
    """The unchanged pictures, so that a table shows what was gained or lost."""
    return Candidate(UNCHANGED, None, finished={case.name: case.rainy for case in cases})


def finished_results(name: str, folder: Path, cases: Sequence[Case], taken: Sequence[str] = ()) -> Candidate:
    """Results of another program: pictures with the same names as the rainy ones.

    Raises:
        UsageError: the name is `taken`, or cannot be a file name.
        DerainError: a case has no result in the folder; the message names it.
    """
    _refuse_name(f"results '{name}'", name, taken)
    results = pictures_below(folder)
    rainy = {case.name: case.rainy for case in cases}
    found = {pair.name: pair.partner for pair in best_pairing(rainy, results).pairs}
    if len(found) < len(cases):
        missing = next(case.name for case in cases if case.name not in found)
        raise DerainError(f"{folder}: no result for {missing}; results need the names of the rainy pictures.")
    finished = {case.name: found[case.name] for case in cases}
    # No identity: the files stand for themselves, and one name makes one row on any set.
    return Candidate(name, None, finished=finished)


def _refuse_name(what: str, name: str, taken: Sequence[str]) -> None:
    if name in taken:
        raise UsageError(f"{what}: another row has that name; choose another.")
    if not name or {"/", "\\"} & set(name):
        raise UsageError(f"{what}: cannot be a file name; choose another name.")


def candidate_of(
    model: Any,
    settings: Settings | None = None,
    taken: Sequence[str] = (),
    title: str | None = None,
    *,
    own_code: bool = False,
) -> Candidate:
    """A model of any type as a candidate with a name that is not `taken`.

    Args:
        model: a name or file of a model, "hf:OWNER/NAME", a `Derainer`, a `torch.nn.Module`, an ONNX file
            that maps pictures, "package.module:factory" (whose code is run), or a `Candidate`.
        settings: for models that are opened here and belong to this project; None for `Settings()`.
        taken: the names of other candidates.
        title: what tables call it; None takes the name of the file, function or class.
        own_code: as for `derain.load`.

    Raises:
        DerainError, UsageError: as `derain.load`, `from_factory` and `from_onnx`; or the title is taken.
    """
    from derain.checkpoints.hub import names_repository, repository
    from derain.restore import Derainer, Settings, load

    if isinstance(model, Candidate):
        found = model
    elif isinstance(model, str) and _FACTORY.fullmatch(model) and not names_repository(model):
        found = from_factory(model)
    elif isinstance(model, str | Path) and _is_foreign_onnx(Path(model)):
        found = from_onnx(Path(model))
    elif isinstance(model, nn.Module) and not hasattr(model, "outputs"):
        found = from_network(model, type(model).__name__)
    else:
        _refuse_module(model)
        how = vars(settings or Settings())
        derainer = model if isinstance(model, Derainer) else load(model, own_code=own_code, **how)
        checkpoint = derainer.checkpoint
        if title is not None:
            name = title
        elif isinstance(model, str | Path) and names_repository(model):
            name = repository(model).name
        else:
            name = checkpoint.path.stem if checkpoint else derainer.name
        found = from_derainer(derainer, name)
        title = None if title is None else found.name
    if title is not None:
        _refuse_name(f"model '{title}'", title, taken)
        return replace(found, name=title)
    numbered = (f"{found.name}-{number}" for number in range(2, len(taken) + 2))
    names = (found.name, *_with_folder(model, found.name), *numbered)
    return replace(found, name=next(name for name in names if name not in taken))


def _refuse_module(model: Any) -> None:
    """Raises `UsageError` for a Python module without its function in place of a model."""
    if not isinstance(model, str | Path) or str(model) in ("", *list_models()):
        return
    text = str(model)
    file = Path(text) if text.endswith(".py") else Path(f"{text.replace('.', '/')}.py")
    if is_file(file):
        module = file.stem if file.is_absolute() else ".".join(file.with_suffix("").parts)
        raise UsageError(
            f"{model}: is Python code; name its function that makes the network, as {module}:FUNCTION."
        )


def _with_folder(model: Any, name: str) -> list[str]:
    """The name preceded by that of the folder, as many runs have a `best.safetensors`."""
    is_file = isinstance(model, str | Path) and Path(model).is_file()
    return [f"{Path(model).resolve().parent.name}-{name}"] if is_file else []


def with_option(candidate: Candidate, option: str) -> Candidate:
    """A new candidate: this one with an option of `derain.restore.test_time.TEST_TIME`.

    Raises:
        UsageError: there is no such option.
    """
    from derain.restore.test_time import TEST_TIME, positions, with_test_time

    refuse_unknown("test-time option", option, TEST_TIME)
    assert candidate.restore is not None
    times = 1 if option == "phases" else len(positions(option))
    count = candidate.multiply_adds
    return replace(
        candidate,
        name=f"{candidate.name}+{option}",
        restore=with_test_time(candidate.restore, option),
        identity=f"{candidate.identity} {option}",
        multiply_adds=(lambda height, width: times * count(height, width)) if count else None,
    )


def _is_foreign_onnx(path: Path) -> bool:
    """Whether this is an ONNX file that this project did not export; one that cannot be read is not decided
    here but reported when it is opened."""
    from derain.checkpoints.exported.facts import KEY

    if path.suffix != ".onnx":
        return False
    try:
        return KEY.encode() not in path.read_bytes()
    except OSError:
        return False


def from_derainer(derainer: Derainer, name: str) -> Candidate:
    """A network of this project with all its settings; averages are part of the name."""
    from derain.methods import network_names
    from derain.restore.test_time import FLIPS, PLAIN, TURNS

    checkpoint = derainer.checkpoint
    size = (checkpoint.architecture.name, checkpoint.variant) if checkpoint else None
    known = (n for n, (found, variant) in network_names().items() if (found.name, variant) == size)
    network: Any = derainer.network
    averaged = {PLAIN: "", FLIPS: "+flips", TURNS: "+turns"}[derainer.positions]

    def restore(rainy: Tensor) -> Tensor:
        return derainer.restore(rainy).image

    return Candidate(
        name=name + averaged + ("+phases" if derainer.settings.phases else ""),
        restore=restore,
        identity=f"{derainer.identity} {derainer.device}",
        method=next(known, ""),
        parameters=sum(p.numel() for p in network.parameters()),
        multiply_adds=lambda height, width: len(derainer.positions) * network.multiply_adds(height, width),
        device=derainer.device,
        precision=str(derainer.dtype).removeprefix("torch."),
    )


def from_factory(target: str) -> Candidate:
    """A network made by the user's own code: `package.module:factory`.

    THE CODE OF THAT MODULE IS RUN, with all rights of this process. The factory takes no arguments and
    returns a function or `torch.nn.Module` that maps (1, 3, H, W) float32 RGB in [0, 1] to the same, or
    to a list whose last entry, or a dictionary whose "image", is the result. A module is put in evaluation
    mode and runs whole pictures in float32 on the CPU. If it takes only multiples of some number of pixels,
    an attribute `multiple_of` must say so; pictures are then padded by reflection, and the results cropped.

    Raises:
        UsageError: there is no such module or factory, or its result cannot be called.
        DerainError: the factory fails.
    """
    make = own_function(target)
    try:
        network = make()
    except Exception as error:  # whatever somebody else's code raises
        raise DerainError(f"{target} fails: {type(error).__name__}: {last_line(error)}") from error
    if not callable(network):
        raise UsageError(f"{target}: returned {type(network).__name__}, which cannot be called.")
    module_name, _, factory_name = target.partition(":")
    name = factory_name if factory_name.lower() not in ("make", "build", "network") else module_name
    source = inspect.getsourcefile(sys.modules[module_name])
    content = Path(source).read_bytes() if source else b""
    return replace(from_network(network, name.rpartition(".")[2]), identity=_digest(network, content))


def from_network(network: Callable[[Tensor], Any], name: str) -> Candidate:
    """A network of any kind, given as an object; see `from_factory` for what it must take and return."""
    count = None
    if isinstance(network, nn.Module):
        network.eval()
        count = sum(p.numel() for p in network.parameters())
    multiple = int(getattr(network, "multiple_of", 1))

    def restore(rainy: Tensor) -> Tensor:
        return _whole(network, rainy, multiple, name)

    adds = _counter(network, multiple) if isinstance(network, nn.Module) else None
    return Candidate(name, restore, _digest(network), "", count, adds, precision="float32")


def from_onnx(path: Path) -> Candidate:
    """Any ONNX file with one input, (1, 3, H, W) float32 RGB in [0, 1], whose first output is the result.

    Height and width may be fixed; pictures of other sizes are then refused.

    Raises:
        DerainError: the file cannot be read, or ONNX Runtime refuses it.
    """
    runtime = extra("onnxruntime", "onnx")
    try:
        content = path.read_bytes()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise DerainError(f"{path}: cannot be read ({reason(error)}).") from None
    except Exception as error:  # the runtime's own classes
        raise DerainError(f"{path}: ONNX Runtime refuses it ({last_line(error)}).") from None
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise DerainError(f"{path}: must have one input of four axes; it has {[i.shape for i in inputs]}.")

    def network(rainy: Tensor) -> Tensor:
        array = np.ascontiguousarray(rainy.numpy(), np.float32)
        return torch.from_numpy(session.run(None, {inputs[0].name: array})[0])

    identity = hashlib.sha256(content).hexdigest()
    return replace(from_network(network, path.stem), identity=identity)


def _whole(network: Callable[[Tensor], Any], rainy: Tensor, multiple: int, name: str) -> Tensor:
    height, width = rainy.shape[2:]
    padded = pad_to_multiple(rainy, multiple)
    try:
        with torch.no_grad():
            found = network(padded)
    except Exception as error:  # whatever somebody else's code raises
        raise DerainError(
            f"{name} fails on {padded.shape[3]}x{padded.shape[2]} pixels: {last_line(error)}"
        ) from error
    if isinstance(found, Mapping):
        found = found.get("image")
    elif isinstance(found, list | tuple):
        found = found[-1]
    if not isinstance(found, Tensor) or found.shape != padded.shape:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise DerainError(f"{name} made {shape} of a picture {tuple(padded.shape)}.")
    return found[..., :height, :width].cpu().float().clamp(0, 1)


def _counter(network: nn.Module, multiple: int) -> Callable[[int, int], int]:
    """A function that counts the matrix products and convolutions for one picture, on zeros of its size."""
    from torch.utils.flop_counter import FlopCounterMode

    def count(height: int, width: int) -> int:
        zeros = torch.zeros(1, 3, height, width)
        with FlopCounterMode(display=False) as counter:
            _whole(network, zeros, multiple, type(network).__name__)
        return int(counter.get_total_flops()) // 2

    return count


def _digest(network: Any, content: bytes = b"") -> str:
    """A hash that changes with the weights and with `content`."""
    digest = hashlib.sha256(content)
    if isinstance(network, nn.Module):
        for key, tensor in sorted(network.state_dict().items()):
            digest.update(key.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
