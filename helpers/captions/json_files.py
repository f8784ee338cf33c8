"""Captions files in JSON: COCO's, Karpathy's, COCO's results, JSON lines, a list of records, {name: captions}."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..runtime.texts import shown
from .columns import OPTIONS, Columns, Row
from .decoding import KINDS, open_text, why_not_utf8

SHOWN = 200  # characters of a record that are shown
NUMBER = re.compile(r"(?:COCO_[a-z]+\d{4}_)?0*(\d+)")  # 391895 in COCO_val2014_000000391895.jpg
Record = dict[str, Any]


def json_rows(path: Path, wanted: Sequence[str], chosen: Mapping[str, str | None]) -> Iterator[Row]:
    """Yield the rows of a file in JSON; an image with several captions gives one row for each.

    wanted, chosen: see Columns. Raises UserError on a file of another form.
    """
    content = read_json(path)
    if isinstance(content, list) and content and isinstance(content[0], dict) and "sentences" in content[0]:
        content = {"images": content}
    if isinstance(content, dict) and isinstance(content.get("images"), list):
        if unused := [OPTIONS[kind] for kind, name in chosen.items() if name]:
            raise UserError(f"{path} is COCO's or Karpathy's JSON, which has no columns: leave out {unused[0]}")
        if "caption" in wanted and "annotations" in content:
            yield from _coco(path, content)
        else:
            yield from _karpathy(path, content["images"], wanted)
        return
    if isinstance(content, dict) and "caption" in wanted and _is_name_to_captions(content):
        content = [{"image_name": name, "caption": captions} for name, captions in content.items()]
        chosen = {}
    if isinstance(content, dict):  # JSON lines, of which there is one
        content = [content]
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        raise UserError(f"{path} is JSON, but holds no captions in a form that is known; give {KINDS}")
    yield from _records(path, content, wanted, chosen)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; of JSON lines the list of them, a broken line as its text.

    Raises UserError if the file is no JSON, or nested too deep.
    """
    with open_text(path) as lines:
        text = lines.read()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise UserError(f"{path} is JSON nested too deep to be read; give {KINDS}") from None
        found = [_line(line) for line in text.split("\n") if line.strip()]
        if any(isinstance(line, dict) for line in found):
            return found
        unread = why_not_utf8(text[:SHOWN]) or " ".join(str(error).split())
        raise UserError(f"{path} is no whole JSON ({unread}); give {KINDS}") from None


def image_ids(path: Path, names: Sequence[str]) -> dict[str, int | str]:
    """Return the image_id of each picture in COCO's results: the one in a JSON file of COCO or Karpathy.

    Of other files it is the number in the picture's name (391895.jpg, COCO_val2014_000000391895.jpg) if every name has
    one of its own, else the name.
    """
    known: dict[str, int | str] = {}
    if begins_like_json(path):
        content = read_json(path)
        images = content.get("images") if isinstance(content, dict) else None
        for image in images if isinstance(images, list) else ():
            if isinstance(image, dict) and isinstance(name := image.get("file_name") or _karpathy_name(image), str):
                numbers = [image[key] for key in ("id", "cocoid", "imgid") if isinstance(image.get(key), int)]
                if numbers:
                    known[name] = numbers[0]
    if known:
        return {name: known[name] for name in names if name in known}
    numbers = {name: int(found[1]) for name in names if (found := NUMBER.fullmatch(Path(name).stem))}
    whole = len(numbers) == len(names) and len(set(numbers.values())) == len(names)
    return numbers if whole else {name: name for name in names}


def begins_like_json(path: Path) -> bool:
    """Return whether the file's first character, white space aside, opens an object or a list of JSON."""
    if path.is_dir():
        return False
    with open_text(path) as lines:
        return lines.read(1000).lstrip()[:1] in ("{", "[")


def _line(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.rstrip("\r")


def _coco(path: Path, content: Record) -> Iterator[Row]:
    names: dict[int | str, list[str]] = {}  # more than one if an id stands twice
    for image in content["images"]:
        number, name = (image.get(key) if isinstance(image, dict) else None for key in ("id", "file_name"))
        if isinstance(number, int | str) and isinstance(name, str) and name not in names.setdefault(number, []):
            names[number].append(name)
    if not names or not isinstance(content["annotations"], list):
        raise UserError(f"{path} is not in COCO's form: each of its images needs an id and a file_name, each of its "
                        "annotations an image_id and a caption")  # fmt: skip
    for number, each in enumerate(content["annotations"]):
        text, reason, fields = _shown(each), None, None
        number_of = each.get("image_id") if isinstance(each, dict) else None
        name, *others = names.get(number_of, [None]) if isinstance(number_of, int | str) else [None]
        if name is None:
            reason = "an image_id that is not among the images"
        elif others:
            reason = f"two images have its image_id, {name} and {others[0]}"
        elif not isinstance(each.get("caption"), str):
            reason = "the caption is no text"
        else:
            fields = {"image_name": name.strip(), "caption": each["caption"].strip()}
        yield Row(number, fields, text, reason)


def _karpathy_name(image: Record) -> Any:
    """Return the picture's name, behind its folder if the file says one, as Karpathy's COCO does by filepath."""
    name, folder = image.get("filename"), image.get("filepath")
    return f"{folder}/{name}" if isinstance(folder, str) and folder and isinstance(name, str) else name


def _karpathy(path: Path, images: list[Any], wanted: Sequence[str]) -> Iterator[Row]:
    for number, image in enumerate(images):
        name = _karpathy_name(image) if isinstance(image, dict) else None
        lacks = [key for key in ("split", "sentences") if not isinstance(image, dict) or key not in image]
        needed = "sentences" if "caption" in wanted else "split"
        if not isinstance(name, str) or needed in lacks or not isinstance(image.get("sentences", []), list):
            reason = f"needs a filename and {'sentences' if needed == 'sentences' else 'a split'}"
            if number == 0:
                raise UserError(f"{path} is not in the form of Karpathy's dataset_flickr30k.json: its image 0 {reason}")
            yield Row(number, None, _shown(image), f"it {reason}")
            continue
        fields = {"image_name": name.strip()}
        if "split" not in lacks:
            fields["split"] = str(image["split"]).strip()
        if "caption" not in wanted:
            yield Row(number, fields, _shown(image))
            continue
        for sentence in image["sentences"]:
            caption = sentence.get("raw") if isinstance(sentence, dict) else sentence
            if caption is None and isinstance(sentence, dict) and isinstance(sentence.get("tokens"), list):
                caption = " ".join(map(str, sentence["tokens"]))
            reason = None if isinstance(caption, str) else "the caption is no text"
            yield Row(number, None if reason else {**fields, "caption": caption.strip()}, _shown(sentence), reason)


def _is_name_to_captions(content: Record) -> bool:
    return bool(content) and all(
        isinstance(caption, str)
        for name, value in content.items()
        for caption in (value if isinstance(value, list) else [value if "." in name else None])
    )


def _records(path: Path, records: list[Any], wanted: Sequence[str], chosen: Mapping[str, str | None]) -> Iterator[Row]:
    header = list(dict.fromkeys(key for record in records if isinstance(record, dict) for key in record))
    columns = Columns(path, header, wanted, chosen)
    if columns.missing == ["image_name"] and "image_id" in header:  # COCO's results
        columns = Columns(path, header, wanted, {**chosen, "image_name": "image_id"})
    if columns.missing:
        raise UserError(f"{path} has the fields {shown(', '.join(header))[:SHOWN]}, but needs {columns.needs}")
    for number, record in enumerate(records):
        if isinstance(record, dict):
            yield from columns.rows(number, [record.get(key) for key in header], _shown(record))
        else:
            yield Row(number, None, str(record)[:SHOWN], "no record of JSON")


def _shown(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)[:SHOWN]
    except RecursionError:
        return "nested too deep"
