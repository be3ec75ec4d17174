"""``python -m cldistill``: what ``accelerate launch -m cldistill`` starts."""

from cldistill.cli.main import main

if __name__ == "__main__":
    main()
