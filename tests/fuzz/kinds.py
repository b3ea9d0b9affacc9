"""All kinds of broken inputs."""

from __future__ import annotations

from fuzz.checkpoints import CHECKPOINTS
from fuzz.clips import CLIPS
from fuzz.folders import FOLDERS_OF_FILES
from fuzz.pictures import PICTURES
from fuzz.recipes import RECIPES
from fuzz.requests import REQUESTS
from fuzz.trial import Kind

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (PICTURES, CLIPS, CHECKPOINTS, RECIPES, FOLDERS_OF_FILES, REQUESTS)
}
