"""minigpt on the command line."""


def main() -> None:
    raise SystemExit("minigpt: not built yet")
