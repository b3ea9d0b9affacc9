"""The fields of the API's responses."""

from __future__ import annotations

from pydantic import BaseModel, Field

from derain.pictures.kinds import KINDS
from derain.serve.jobs import ServerJob, State, Store
from derain.serve.limits import Limits
from derain.serve.uploads import Kind


class FinishView(BaseModel):
    """A result that was changed without another run."""

    strength: float = Field(description="Share of the job's change that was applied.")
    protect: bool = Field(description="Whether parts of the picture were left as they were.")


class JobView(BaseModel):
    """A picture or clip being restored."""

    id: str = Field(description="Random; anybody who knows it can see and delete the job.")
    name: str = Field(description="Name of the uploaded file, without its path.")
    kind: Kind = Field(description="A still picture or a clip.")
    width: int = Field(description="In pixels, upright.")
    height: int = Field(description="In pixels, upright.")
    model: str = Field(description="Name of the model; see /api/v1/models.")
    strength: float = Field(description="How much of the network's change was applied.")
    state: State = Field(description="waiting, running, and in the end done or failed.")
    fraction: float = Field(description="Share of the work that is done, 0 to 1.")
    ahead: int = Field(description="Jobs ahead of it in the queue.")
    note: str = Field(description="Why it failed, or what to know about the result; one line.")
    result: str = Field(description="Name of the file to download.")
    kept: list[str] = Field(description="What the result contains besides its pixels, in words.")
    mask: bool = Field(description="Whether there is a rain mask.")
    film: bool = Field(description="Whether there is a film of before and after; clips only.")
    finish: FinishView | None = Field(description="The result as changed afterwards, if it was.")


class BatchEntry(BaseModel):
    """One file of a batch: its job, or why there is none."""

    name: str = Field(description="Name of the uploaded file, without its path.")
    job: JobView | None = Field(default=None, description="If it was accepted.")
    error: str = Field(default="", description="Why it was refused, in one line; else empty.")


class ModelView(BaseModel):
    """A model to choose."""

    name: str = Field(description="Value for the field 'model'.")
    title: str = Field(description="Name to show to people.")
    default: bool = Field(description="Whether it is the default.")


class FormatView(BaseModel):
    """A kind of file that can be sent."""

    name: str = Field(description="As people call it.")
    kind: Kind = Field(description="A still picture or a clip.")
    extensions: list[str] = Field(description="Of such files, in lower case, the usual one first.")


class LimitsView(BaseModel):
    """What the server accepts."""

    upload_bytes: int = Field(description="Of one request.")
    pixels: int = Field(description="Of one picture, or of one frame of a clip.")
    clip_seconds: float = Field(description="Length of a clip.")
    job_seconds: float = Field(description="Longest time that restoring one picture or clip may take.")
    keep_seconds: float = Field(description="After which a finished job is deleted.")
    formats: list[FormatView] = Field(description="Kinds of files that are read here.")


class Login(BaseModel):
    """The token, from the page."""

    token: str = Field(description="That the server was started with.")


class Problem(BaseModel):
    """Why a request was refused, in one line."""

    error: str = Field(description="What was wrong, and what to do.")


class Status(BaseModel):
    """State of the server."""

    status: str = Field(description="ok, or what it is waiting for.")


def limits_view(limits: Limits) -> LimitsView:
    """What a server accepts, with the formats that the installed packages read."""
    formats = [
        FormatView(
            name=kind.name,
            kind="picture" if kind.media == "picture" else "clip",
            extensions=list(kind.extensions),
        )
        for kind in KINDS
        if kind.is_read
    ]
    return LimitsView.model_validate({**vars(limits), "formats": formats})


def view(job: ServerJob, store: Store) -> JobView:
    """A job as the API shows it; `store` knows how many jobs are ahead of it."""
    return JobView(
        id=job.id,
        name=job.upload.name,
        kind=job.upload.kind,
        width=job.upload.size[1],
        height=job.upload.size[0],
        model=job.model,
        strength=job.strength,
        state=job.state,
        fraction=round(job.fraction, 3),
        ahead=store.ahead_of(job),
        note=job.note,
        result=job.result_name,
        kept=list(job.kept),
        mask=job.state == "done" and job.mask.exists(),
        film=job.state == "done" and job.film.exists(),
        finish=None
        if job.finish is None
        else FinishView(strength=job.finish.strength, protect=job.finish.protect is not None),
    )
