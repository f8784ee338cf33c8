"""Captioners by name: in this process, or in one process that writes for every visitor of the app."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from ..errors import UserError
from ..models.decoding import Decoding

if TYPE_CHECKING:  # PyTorch takes 200 MB and seconds, which a kernel without a captioner of its own saves
    from ..models.writer import CaptionWriter

WAITING = 64  # visitors whose pictures may wait for a caption
LONGEST_REQUEST = 4096  # bytes, without the picture


@dataclass(frozen=True)
class Caption:
    """A caption and the captioner's own probability of it: the geometric mean over its tokens, 0 to 1."""

    text: str
    probability: float


@dataclass(frozen=True)
class Written:
    """The captions of one picture, in the decoding's order, and whether it is unlike the training (None: not known)."""

    captions: list[Caption]
    unlike: bool | None


class Captioners(Protocol):
    """Interface of captioners for the explorer."""

    names: list[str]

    def write(self, name: str, picture: Image.Image, decoding: Decoding) -> Written:
        """Return the captions that the captioner `name` writes for an RGB picture. Raises UserError if it cannot."""


class OwnCaptioners:
    """Captioners in this process."""

    def __init__(self, captioners: "CaptionWriter | Mapping[str, CaptionWriter | str | Path]"):
        """captioners: one captioner, or {name: captioner or its folder}; a folder is loaded on its first use."""
        self._captioners = dict(captioners) if isinstance(captioners, Mapping) else {"captioner": captioners}
        self.names = list(self._captioners)

    def write(self, name: str, picture: Image.Image, decoding: Decoding) -> Written:
        """Return the captions that the captioner `name` writes. Raises UserError if it cannot be loaded."""
        writer = self._loaded(name)
        if decoding.max_tokens is not None:
            decoding = replace(decoding, max_tokens=min(decoding.max_tokens, writer.captioner.longest_caption))
        embeddings = writer.embed([picture])
        found = writer.candidates(embeddings, decoding)
        captions = [Caption(candidate.caption, candidate.probability) for candidate in found]
        return Written(captions, writer.unlike_training(embeddings)[0])

    def _loaded(self, name: str) -> "CaptionWriter":
        from ..models.writer import CaptionWriter
        from ..runtime.device import choose_accelerator

        if not isinstance(self._captioners[name], CaptionWriter):
            device = choose_accelerator("fp32").device
            self._captioners[name] = CaptionWriter.load(self._captioners[name], device=device)
        return self._captioners[name]


class SharedCaptioners:
    """Captioners in the process that `write_for_all` runs in."""

    def __init__(self, address: str, names: Sequence[str]):
        """address: of that process's Unix socket."""
        self.address, self.names = address, list(names)

    def write(self, name: str, picture: Image.Image, decoding: Decoding) -> Written:
        """Return the captions that the captioner `name` writes. Raises UserError if it cannot, or if nobody answers."""
        request = {"name": name, "size": picture.size, "decoding": asdict(decoding)}
        try:
            with Client(self.address) as connection:
                connection.send_bytes(json.dumps(request).encode())
                connection.send_bytes(picture.convert("RGB").tobytes())
                answer = json.loads(connection.recv_bytes())
        except (OSError, EOFError) as error:
            raise UserError("the process that writes captions does not answer: start the app again") from error
        if "error" in answer:
            raise UserError(answer["error"])
        return Written([Caption(text, probability) for text, probability in answer["captions"]], answer["unlike"])


def write_for_all(address: str, folders: Mapping[str, Path]) -> None:
    """Write captions for whoever asks at the Unix socket `address`, one picture at a time, and never return.

    folders: {name: folder of a captioner}; each is loaded once, on its first use.
    """
    captioners = OwnCaptioners(folders)
    with Listener(address, backlog=WAITING) as listener:
        while True:
            try:
                with listener.accept() as connection:
                    connection.send_bytes(json.dumps(_answer(connection, captioners)).encode())
            except Exception as error:  # noqa: BLE001 - one visitor's trouble must not end the captions of all
                print(f"a caption was not written: {type(error).__name__}: {error}", flush=True)


def _answer(connection: Connection, captioners: OwnCaptioners) -> dict:
    request = json.loads(connection.recv_bytes(LONGEST_REQUEST))
    width, height = request["size"]
    picture = Image.frombytes("RGB", (width, height), connection.recv_bytes(3 * width * height))
    try:
        written = captioners.write(request["name"], picture, Decoding(**request["decoding"]))
    except UserError as error:
        return {"error": str(error)}
    captions = [(caption.text, caption.probability) for caption in written.captions]
    return {"captions": captions, "unlike": written.unlike}
