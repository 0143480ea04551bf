"""`python -m n4a_fast`: the command line, without its script on the PATH."""

from n4a_fast.cli import app

if __name__ == "__main__":
    app(prog_name="n4a-fast")
