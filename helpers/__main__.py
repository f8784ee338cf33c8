"""`python -m helpers COMMAND` is `clipxgpt COMMAND`."""

from .cli import main

if __name__ == "__main__":
    main()
