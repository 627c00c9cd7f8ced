"""``python -m selfinstruct``."""

from selfinstruct.cli.main import main

if __name__ == "__main__":
    main()
