"""Java, where there is one, for the two parts of pycocoevalcap that run on it: COCO's tokenizer and METEOR."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

INSTALL = "pycocoevalcap is not installed: pip install pycocoevalcap"


def why_no_java() -> str | None:
    """Why nothing can be run on Java here, or None where it can."""
    if find_spec("pycocoevalcap") is None:
        return INSTALL
    if shutil.which("java") is None:
        return "Java is not installed, or not on the PATH"
    try:  # macOS has a `java` that only says that there is none
        subprocess.run(["java", "-version"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"java does not run ({error})"
    return None


def jar(part: str, name: str) -> Path:
    """The jar file `name` that lies beside the module `part` of pycocoevalcap."""
    return Path(find_spec(f"pycocoevalcap.{part}").origin).with_name(name)


def command(*arguments: str) -> list[str]:
    """Java with text in UTF-8 on every side, whatever the locale says."""
    return ["java", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", *arguments]
