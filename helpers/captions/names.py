"""Names of pictures: what picture files end in, spellings of one name, and which names mean the same picture."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

ENDINGS = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
                     ".jp2", ".j2k", ".avif", ".heic", ".heif", ".hif"})  # fmt: skip
_followed: set[Path] = set()


def has_picture_ending(name: str) -> bool:
    return Path(name).suffix.lower() in ENDINGS


def plain_name(name: str) -> str:
    """Return the name without "./" and doubled slashes."""
    if "./" not in name and "//" not in name:
        return name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return ("/" if name.startswith("/") else "") + "/".join(parts) if parts else name


def same_pictures(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return for each of `names` the one of `known` that means the same picture, if there is one: {name: known name}.

    Backslashes are slashes, and accents may be spelt in two ways. Without an equal name, `photos/a.jpg` means `a.jpg`,
    and `a` means `a.jpg`, if no second picture on either side could be meant.
    """
    names, known = list(dict.fromkeys(names)), list(dict.fromkeys(known))
    if set(names) <= set(known):
        return {name: name for name in names}
    equal = {_key(each): each for each in reversed(known)}
    found = {name: equal[_key(name)] for name in names if _key(name) in equal}
    loose: dict[str, list[str]] = defaultdict(list)
    for each in known:
        loose[_stem(each)].append(each)
    for name in names:
        if name not in found:
            close = [each for each in loose[_stem(name)] if _is_end_of(each, name) or _is_end_of(name, each)]
            if len(close) == 1:
                found[name] = close[0]
    times = Counter(found.values())
    return {name: each for name, each in found.items() if times[each] == 1 or _key(name) == _key(each)}


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", plain_name(name.replace("\\", "/")))


def _without_ending(key: str) -> str:
    return key[: -len(Path(key).suffix)] if has_picture_ending(key) else key


def _stem(name: str) -> str:
    return _without_ending(_key(name)).rpartition("/")[2]


def _is_end_of(end: str, name: str) -> bool:
    """Return whether `end` is the last part of the path `name`; if one of them has no ending, endings do not count."""
    end, name = _key(end), _key(name)
    if not (has_picture_ending(end) and has_picture_ending(name)):
        end, name = _without_ending(end), _without_ending(name)
    return f"/{name}".endswith(f"/{end}")


def follow_links(folder: str | Path) -> None:
    """Follow this folder's links from now on, wherever they lead. Until then a link out of the folder is refused."""
    _followed.add(Path(folder).resolve())


def stays_inside(folder: Path, path: Path) -> bool:
    """Return whether `path`, all links followed, lies in `folder`, or whether the folder's links may be followed."""
    inside = folder.resolve()
    return inside in _followed or path.resolve().is_relative_to(inside)
