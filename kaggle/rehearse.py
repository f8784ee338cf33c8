"""Run the kaggle client's own push up to the requests it would send. Nothing is sent and no user's key is read."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import requests
from requests.adapters import HTTPAdapter

SOURCE_BYTES = 1_000_000  # a notebook must be smaller: the server says "less than 1 megabytes"
KERNEL_FIELDS = {
    "id": "slug", "title": "newTitle", "language": "language", "kernel_type": "kernelType", "is_private": "isPrivate",
    "enable_gpu": "enableGpu", "enable_tpu": "enableTpu", "enable_internet": "enableInternet",
    "machine_shape": "machineShape", "dataset_sources": "datasetDataSources", "kernel_sources": "kernelDataSources",
    "competition_sources": "competitionDataSources", "model_sources": "modelDataSources", "keywords": "categoryIds",
    "id_no": "id", "docker_image": "dockerImage", "docker_image_pinning_type": "dockerImagePinningType",
}  # fmt: skip
DATASET_FIELDS = {"title": "title", "subtitle": "subtitle", "description": "description", "keywords": "categoryIds"}
ANSWERS = {  # what the server would reply, by the last part of the address
    "SaveKernel": {"url": "https://www.kaggle.com/code", "versionNumber": 1},
    "GetDatasetStatus": {"code": 404, "message": "no such dataset yet"},
    "StartBlobUpload": {"token": "token", "createUrl": "https://upload.invalid/blob"},
    "blob": {},
    "CreateDataset": {"status": "ok", "url": "https://www.kaggle.com/datasets"},
}


def rehearse_kernel(folder: Path) -> Iterator[str]:
    """Yield each thing that the client would refuse or change in `kaggle kernels push -p folder`, as one line."""
    metadata = json.loads((folder / "kernel-metadata.json").read_text(encoding="utf-8"))
    sent, complaint = record(lambda client: client.kernels_push(str(folder)))
    if complaint or "SaveKernel" not in sent:
        yield f"the client does not push it: {complaint or 'it sends nothing'}"
        return
    body = json.loads(sent["SaveKernel"])
    yield from _differences(metadata, body, KERNEL_FIELDS)
    cells, pushed = _sources(json.loads((folder / metadata["code_file"]).read_text(encoding="utf-8"))), body["text"]
    if _sources(json.loads(pushed)) != cells:
        yield f"the client would not send the cells of {metadata['code_file']}: rebuild it with make kaggle"
    if len(pushed.encode()) >= SOURCE_BYTES:
        size = len(pushed.encode())
        yield f"{metadata['code_file']} has {size} bytes without outputs, Kaggle wants less than {SOURCE_BYTES}: cut it"


def rehearse_dataset(folder: Path) -> Iterator[str]:
    """Yield each thing that the client would refuse or change in `kaggle datasets create -p folder --dir-mode zip`."""
    metadata = json.loads((folder / "dataset-metadata.json").read_text(encoding="utf-8"))
    sent, complaint = record(lambda client: client.dataset_create_new(str(folder), quiet=True, dir_mode="zip"))
    if complaint or "CreateDataset" not in sent:
        yield f"the client does not create it: {complaint or 'it sends nothing'}"
        return
    body = json.loads(sent["CreateDataset"])
    yield from _differences(metadata, body, DATASET_FIELDS)
    if f"{body['ownerSlug']}/{body['slug']}" != metadata["id"]:
        yield f"the client would create {body['ownerSlug']}/{body['slug']}, but id is {metadata['id']}: correct the id"
    if body.get("isPrivate") is not True:
        yield "the client would publish it: leave out --public"
    for part in (path for path in folder.iterdir() if path.is_dir()):
        held = {path.relative_to(part).as_posix() for path in part.rglob("*.*")}
        if lost := held - set(zipfile.ZipFile(io.BytesIO(sent[f"{part.name}.zip"])).namelist()):
            yield f"the client would leave out {len(lost)} files, such as {min(lost)}: rename it"


def record(push: Callable[[Any], Any]) -> tuple[dict[str, bytes], str]:
    """Return what `push(client)` would send, and the client's complaints in one line.

    A request's key is the last part of its address; a file's key is its announced name. The client's code runs
    unchanged, without an account and in a temporary home folder; only the HTTP library's `send` is replaced.
    """
    sent: dict[str, bytes] = {}

    def send(_adapter: HTTPAdapter, request: requests.PreparedRequest, **_how: Any) -> requests.Response:
        what = str(request.url).rsplit("/", 1)[-1]
        body = request.body or b""
        content = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else body.read()
        sent[json.loads(sent["StartBlobUpload"])["name"] if what == "blob" else what] = content
        response = requests.Response()
        response.status_code = ANSWERS[what].get("code", 200)
        response.headers["Content-Type"] = "application/json"
        response.raw, response.url, response.request = io.BytesIO(json.dumps(ANSWERS[what]).encode()), "", request
        return response

    spoken = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as home,
        mock.patch.dict(os.environ, {"KAGGLE_CONFIG_DIR": home, "HOME": home, "TMPDIR": home,
                                     "KAGGLE_USERNAME": "nobody", "KAGGLE_KEY": "none"}),
        mock.patch.object(tempfile, "tempdir", home),
        mock.patch.object(HTTPAdapter, "send", send),
        redirect_stdout(spoken), redirect_stderr(spoken),
    ):  # fmt: skip
        os.environ.pop("KAGGLE_API_TOKEN", None)
        from kaggle.api.kaggle_api_extended import KaggleApi

        try:
            client = KaggleApi()
            client.authenticate()
            push(client)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (the client raises whatever its libraries do)
            print(f"{type(error).__name__}: {error}")
    return sent, " ".join(spoken.getvalue().split())


def _differences(metadata: dict[str, Any], body: dict[str, Any], fields: dict[str, str]) -> Iterator[str]:
    """Yield each value that differs between metadata and request. The request leaves out empty values."""
    for key, field in fields.items():
        if key in metadata and metadata[key] != body.get(field, type(metadata[key])()):
            yield f"{key} is {metadata[key]!r}, but the client would send {body.get(field)!r}: correct it"


def _sources(notebook: dict[str, Any]) -> list[tuple[str, str]]:
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
