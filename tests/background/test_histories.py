import numpy as np
import pytest

from background import plain
from derain.background.histories import modes, sort_histories


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 31, 100, 257])
def test_every_history_ascends(frames: int) -> None:
    planes = np.random.default_rng(frames).integers(0, 256, (frames, 50), dtype=np.uint8)
    expected = np.sort(planes, axis=0)
    np.testing.assert_array_equal(np.stack(sort_histories(list(planes))), expected)


@pytest.mark.parametrize("frames", [1, 2, 9, 255, 256, 257, 700])
def test_modes_and_their_ranks(frames: int) -> None:
    rng = np.random.default_rng(frames)
    # Histories of one value, of few values (many ties) and of many.
    spread = rng.integers(1, 200, 60)
    planes = (rng.random((frames, 60)) * spread).astype(np.uint8)
    found = modes(list(np.sort(planes, axis=0)))
    expected = [plain.mode_and_ranks(history) for history in planes.T]
    np.testing.assert_array_equal(found.value, [mode for mode, _, _ in expected])
    np.testing.assert_array_equal(found.first, [first for _, first, _ in expected])
    np.testing.assert_array_equal(found.last, [last for _, _, last in expected])
