"""The public rain sets in the folders that people unpack: which set one holds, and whether it is complete.

Pairs of folders are found by their names (`rain/X2` beside `norain`, `input` beside `target`, ...), or by the
names of the files where rainy and clean pictures share a folder. The path says which set it is, or else file
names that only one set uses. Renamed sets cannot be recognised, and are checked without knowing which they
are.
"""

from __future__ import annotations

import filecmp
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from derain.data.folders import refuse_no_folder
from derain.data.pairing import RULES, Pairing, best_pairing, natural_order, pictures_below
from derain.errors import DerainError, Remedy, UsageError
from derain.made_pairs import read_note
from derain.paths import is_file, real
from derain.pictures import EXTENSIONS
from derain.sources import published_by


@dataclass(frozen=True)
class PublicSet:
    """A published set.

    Attributes:
        name: as printed in tables.
        words: what its folder may be called, in lower case without punctuation.
        sizes: the number of rainy pictures in each split, e.g. {"train": 1800, "test": 200}.
        protocol: the one by which most published figures on the set were computed.
        side_by_side: whether the rainy and the clean picture are published as two halves of one file.
    """

    name: str
    words: tuple[str, ...]
    sizes: Mapping[str, int]
    protocol: str
    side_by_side: bool = False

    @property
    def address(self) -> str:
        """Where it is published, its authors' page first; "" if that is not known here."""
        return next((source.address for source in published_by(self.name) if source.address), "")


BYTES, DOUBLE = "matlab_y_uint8", "matlab_y_double"

SETS = (
    PublicSet("Rain200L", ("rain200l",), {"train": 1800, "test": 200}, BYTES),
    PublicSet("Rain200H", ("rain200h",), {"train": 1800, "test": 200}, BYTES),
    PublicSet("Rain100L", ("rain100l", "raintrainl"), {"train": 200, "test": 100}, DOUBLE),
    PublicSet("Rain100H", ("rain100h", "raintrainh"), {"train": 1800, "test": 100}, DOUBLE),
    PublicSet("Rain12", ("rain12",), {"test": 12}, DOUBLE),
    PublicSet("Rain800", ("rain800", "idcgan"), {"train": 700, "test": 100}, BYTES, side_by_side=True),
    PublicSet("Rain13K", ("rain13k",), {"train": 13712}, BYTES),
    PublicSet("Test100", ("test100",), {"test": 100}, BYTES),
    PublicSet("Test1200", ("test1200",), {"test": 1200}, BYTES),
    PublicSet("Test2800", ("test2800",), {"test": 2800}, BYTES),
    PublicSet("DID-Data", ("did", "didmdn"), {"train": 12000, "test": 1200}, DOUBLE, side_by_side=True),
    PublicSet("DDN-Data", ("ddn", "rain1400", "rain14000"), {"train": 12600, "test": 1400}, DOUBLE),
    PublicSet("SPA-Data", ("spa", "realworld", "realtest1000"), {"train": 638492, "test": 1000}, BYTES),
    PublicSet("RainDS-Syn", ("raindssyn",), {"train": 1000, "test": 200}, "udr_test_y"),
    PublicSet("RainDS-Real", ("raindsreal",), {"train": 150, "test": 98}, "udr_test_y"),
    PublicSet(
        "AGAN-Data", ("agan", "raindropagan"), {"train": 861, "test_a": 58, "test_b": 249}, "raindrop_y"
    ),
)

RAINY_FOLDERS = {
    "rain", "rainy", "rainyimage", "rainyimages", "input", "inputs", "data", "realworld",
    "raindrop", "rainstreak", "rainstreakraindrop",
}  # fmt: skip
CLEAN_FOLDERS = {
    "norain", "clean", "target", "targets", "gt", "groundtruth", "label", "labels", "realworldgt",
}  # fmt: skip
SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "val": "test",
    "validation": "test", "testa": "test_a", "testb": "test_b", "realtest1000": "test",
    "raintrainl": "train", "raintrainh": "train",
}  # fmt: skip
RAINDS_KINDS = {"rainstreak": "RS", "raindrop": "RD", "rainstreakraindrop": "RDS"}
# Sets that can be recognised by the names of their files alone: (pattern of a rainy file's stem, sets).
TELLING_NAMES = (
    (r"rd-(rain-)?.+", ("RainDS-Syn", "RainDS-Real")),
    (r"\d+_rain", ("AGAN-Data",)),
    (r"(no)?rain-\d+x2", ("Rain200L", "Rain200H")),
)


@dataclass(frozen=True)
class Split:
    """Rainy and clean pictures that belong together.

    Attributes:
        rainy, clean: their folders; the same where the two share one.
        pairing: which clean picture belongs to which rainy one, and what is left over.
        sets: the public sets that it may be; empty if none is recognised.
        purpose: "train", "test", "test_a", ... according to the folders, or to the number of pairs; None if
            neither tells.
        made: how this project made it, in words; "" for sets from elsewhere.
    """

    rainy: Path
    clean: Path
    pairing: Pairing
    sets: tuple[PublicSet, ...]
    purpose: str | None
    made: str = ""

    @property
    def title(self) -> str:
        """E.g. "Rain200L test"."""
        names = " or ".join(s.name for s in self.sets) or self.made or "unknown set"
        return f"{names} {self.purpose}" if self.purpose else names

    @property
    def dataset(self) -> str:
        """What published tables call the pictures; "" if the set is not known for certain."""
        if len(self.sets) != 1:
            return ""
        name, kind = self.sets[0].name, RAINDS_KINDS.get(_word(self.rainy))
        if name.startswith("RainDS") and kind:
            return f"{name} {kind}"
        return f"{name} {self.purpose}" if name == "AGAN-Data" else name

    @property
    def expected(self) -> tuple[int, ...]:
        """How many pairs the public set has: in this split, or in each of its splits if this is not known."""
        in_split = [s.sizes[self.purpose] for s in self.sets if self.purpose and self.purpose in s.sizes]
        return tuple(dict.fromkeys(in_split or (size for s in self.sets for size in s.sizes.values())))


def find_splits(root: Path, required: bool = True) -> list[Split]:
    """Every pair of rainy and clean pictures below a folder, by path.

    Raises:
        UsageError: the folder does not exist, or it is `required` that a pair is found and none is.
    """
    refuse_no_folder(root)
    splits = list(_below(root))
    if not splits and required:
        if not any(root.iterdir()):
            raise UsageError(f"{root}: is empty; a set has folders such as rainy and clean.")
        known = _set_of(root) or next((s for f in _folders(root) if (s := _set_of(f))), None)
        if known and known.side_by_side:
            raise UsageError(
                f"{root}: {known.name} is published with rainy and clean pictures as halves of one file; "
                "cut them into two folders, rainy and clean."
            )
        raise UsageError(
            f"{root}: no folders of rainy and clean pictures; they are recognised by names such as rainy "
            "and clean, input and target, rain and norain. Clean pictures alone have no partners to check; "
            "`derain synth` makes pairs of them.",
            Remedy("compare them with other pictures, such as a test set", {"against": "FOLDER"}),
        )
    return splits


@dataclass(frozen=True)
class MadeClips:
    """Rainy clips, each with its clean picture, as `derain synth` makes them.

    Attributes:
        made: how they were made, in words.
        clips: the names of those that have their clean picture.
        problems: what is missing, one line each.
    """

    made: str
    clips: tuple[str, ...]
    problems: tuple[str, ...]


def made_clips(folder: Path) -> MadeClips | None:
    """The clips that this project wrote to a folder; None if it holds anything else."""
    made = read_note(folder)
    rainy = {path.stem for path in (folder / "rainy").glob("*.mkv")} if made else set()
    if not rainy:
        return None
    clean = {path.stem for path in (folder / "clean").glob("*") if _is_picture(path)}
    missing = {"clips without a clean picture": rainy - clean, "clean pictures without a clip": clean - rainy}
    problems = [f"{len(names)} {what}, first {min(names)}" for what, names in missing.items() if names]
    return MadeClips(made, tuple(sorted(rainy & clean, key=natural_order)), tuple(problems))


def split_of(rainy: Path, clean: Path) -> Split:
    """Two folders as a split; its pairing lists pictures without a partner.

    Raises:
        UsageError: one of them does not exist or holds no picture.
        DerainError: a name occurs with two different extensions.
    """
    inputs, truths = pictures_below(rainy), pictures_below(clean)
    if clean in rainy.parents:
        truths = {name: path for name, path in truths.items() if path.parent == clean}
    return _recognised(rainy, clean, best_pairing(inputs, truths))


def problems(split: Split, on_pair: Callable[[], None] = lambda: None) -> list[str]:
    """What is missing, unpaired or unsuitable in a split, one line each; reads only headers."""
    found = []
    pairs, expected = split.pairing.pairs, split.expected
    if expected and len(pairs) not in expected:
        found.append(f"{len(pairs)} pairs instead of {' or '.join(map(str, expected))}")
    for names, what in (
        (split.pairing.unmatched, "rainy pictures without a clean one"),
        (split.pairing.unmatched_partners, "clean pictures without a rainy one"),
    ):
        if names:
            found.append(f"{len(names)} {what}, first {names[0]}")
    broken, unequal, same = [], [], []
    for pair in pairs:
        try:
            if _size(pair.picture) != _size(pair.partner):
                unequal.append(pair.name)
            elif filecmp.cmp(pair.picture, pair.partner, shallow=False):
                same.append(pair.name)
        except DerainError as error:
            broken.append(str(error))
        on_pair()
    if broken:
        found.append(f"{len(broken)} files cannot be read, first {broken[0]}")
    if unequal:
        found.append(f"{len(unequal)} pairs of different sizes, first {unequal[0]}")
    if same:
        found.append(f"{len(same)} pairs whose clean picture is the rainy one itself, first {same[0]}")
    return found


def _below(folder: Path) -> Iterator[Split]:
    shared = _sharing(folder)
    if shared:
        yield shared
    children = sorted(child for child in folder.iterdir() if child.is_dir() and child.name[0] != ".")
    clean = next((c for c in children if _word(c) in CLEAN_FOLDERS), None)
    taken = {clean}
    for child in children:
        if _word(child) not in RAINY_FOLDERS:
            continue
        rainy = child / "X2" if (child / "X2").is_dir() else child
        partner = clean
        if partner is None and any(_is_picture(f) and f.stem.startswith("norain") for f in folder.iterdir()):
            partner = folder  # PReNet's Rain100L: norain-001.png above rainy/rain-001.png
        if partner is None:
            continue
        split = _split(rainy, partner)
        if split:
            yield split
            taken.add(child)
    for child in children:
        if child not in taken:
            yield from _below(child)


def _split(rainy: Path, clean: Path) -> Split | None:
    try:
        return split_of(rainy, clean)
    except UsageError:  # one of them holds no picture
        return None


def _sharing(folder: Path) -> Split | None:
    """A folder that holds both kinds, told apart by a rule that turns rainy names into clean ones."""
    pictures = {f.name: f for f in sorted(folder.iterdir()) if _is_picture(f)}
    stems = {path.stem for path in pictures.values()}
    clean = {
        target
        for rule in RULES
        if rule.partner.startswith("norain") or rule.partner.endswith(("_GT", "_clean"))
        for stem in stems
        if (target := rule.partner_stem(stem)) in stems and target != stem
    }
    if not clean:
        return None
    rainy = {name: path for name, path in pictures.items() if path.stem not in clean}
    truths = {name: path for name, path in pictures.items() if path.stem in clean}
    return _recognised(folder, folder, best_pairing(rainy, truths))


def _recognised(rainy: Path, clean: Path, pairing: Pairing) -> Split:
    names = [pair.name for pair in pairing.pairs] or list(pairing.unmatched)
    stem = Path(names[0]).stem
    place = real(rainy)
    above = [place, *place.parents]
    by_path = next((s for folder in above if (s := _set_of(folder))), None)
    by_name = next((sets for pattern, sets in TELLING_NAMES if re.fullmatch(pattern, stem)), ())
    made = read_note(place.parent)
    sets = () if made else (by_path,) if by_path else tuple(s for s in SETS if s.name in by_name)
    purpose = next((SPLITS[w] for folder in above[:4] if (w := _split_word(folder)) in SPLITS), None)
    if purpose is None and sets:
        sizes = {size: split for s in sets for split, size in s.sizes.items()}
        purpose = sizes.get(len(pairing.pairs)) or (next(iter(sizes.values())) if len(sizes) == 1 else None)
    return Split(rainy, clean, pairing, sets, purpose, made)


def _set_of(folder: Path) -> PublicSet | None:
    """The set that a folder's own name stands for."""
    word = re.sub(r"(dataset|data)$", "", re.sub(r"(training|testing|train|test|small)$", "", _word(folder)))
    return next((s for s in SETS if word in s.words or _word(folder) in s.words), None)


def _split_word(folder: Path) -> str:
    """The end of a folder's name that states its purpose: Rain200L_test -> test."""
    word = _word(folder)
    if word in SPLITS:
        return word
    match = re.search(r"(train|training|test|testing|val)$", word)
    return match.group(1) if match else ""


def _word(folder: Path) -> str:
    return re.sub(r"[^a-z0-9]", "", folder.name.lower())


def _folders(root: Path) -> Iterator[Path]:
    return (folder for folder in root.rglob("*") if folder.is_dir())


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and path.is_file()


def _size(path: Path) -> tuple[int, int]:
    """(width, height) according to the header.

    Raises:
        DerainError: it has no header of a known format.
    """
    if not is_file(path):  # reading a pipe might never end
        raise DerainError(f"{path.name}: not a regular file")
    try:
        with Image.open(path, formats=["PNG", "JPEG", "WEBP", "TIFF", "BMP", "AVIF"]) as picture:
            return picture.size
    except (OSError, ValueError, Image.DecompressionBombError):
        raise DerainError(f"{path.name}: not a picture, or damaged") from None


def pictures_to_compare(
    folder: Path, splits: Sequence[Split], against: Path | None
) -> tuple[list[Path], list[Path]]:
    """The clean pictures for training and for testing, which should have no scene in common.

    Args:
        folder: the folder in which `splits` were found; without any, all its pictures count.
        against: a folder with the pictures used for testing; None takes the training and the test
            splits of `folder`.

    Raises:
        UsageError: `against` holds no picture.
    """
    if against is not None:
        own = _clean(splits) if splits else list(pictures_below(folder).values())
        other = list(_below(against)) if against.is_dir() else []
        return own, _clean(other) if other else list(pictures_below(against).values())
    train = _clean(split for split in splits if split.purpose == "train")
    test = _clean(split for split in splits if split.purpose not in ("train", None))
    return (train, test) if train and test else ([], [])


def _clean(splits: Iterable[Split]) -> list[Path]:
    return list(dict.fromkeys(pair.partner for split in splits for pair in split.pairing.pairs))
