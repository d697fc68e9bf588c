"""What Ray asks of the `docker` command, done on the node itself: there is no Docker engine here.

A container is a file that says which image it has, its environment and its mounts. What is run in
it runs with that environment and no other. As with Docker, an image has to be pulled first, and
GPUs that are not there end `docker run`.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

HOME = os.environ["HOME"]
STATE = Path(HOME) / ".docker-stand-in"
PULLED, CONTAINERS = STATE / "images", STATE / "containers"
MARK = "STAND_IN_CONTAINER"


def main(words: list[str]) -> int:
    """Do what Ray asks; anything else is an error, for it would be done wrongly."""
    CONTAINERS.mkdir(parents=True, exist_ok=True)
    PULLED.touch()
    verb, rest = words[0], words[1:]
    if verb == "image" and rest[0] == "inspect":
        return 0 if pulled(rest[1]) else missing(rest[1])
    verbs = {"pull": pull, "info": info, "inspect": inspect, "run": run, "exec": execute}
    verbs["stop"] = stop
    if verb in verbs:
        return verbs[verb](rest)
    raise SystemExit(f"docker stand-in: cannot {' '.join(words)}")


def pulled(image: str) -> bool:
    return image in PULLED.read_text().splitlines()


def missing(name: str) -> int:
    print(f"Error: No such object: {name}", file=sys.stderr)
    return 1


def pull(words: list[str]) -> int:
    [image] = words
    if not re.fullmatch(r"rayproject/ray:[\w.-]+", image):
        print(f"Error: pull access denied for {image}", file=sys.stderr)
        return 1
    PULLED.write_text(f"{PULLED.read_text()}{image}\n")
    return 0


def info(words: list[str]) -> int:
    print("map[io.containerd.runc.v2:{runc [] <nil>} runc:{runc [] <nil>}]")
    return 0


def inspect(words: list[str]) -> int:
    [flag, template, name] = words
    assert flag == "-f"
    if pulled(name):
        assert template == "{{json .Config.Env}}"
        print(json.dumps([f"HOME={HOME}", f"PATH={os.environ['PATH']}"]))
        return 0
    if not (CONTAINERS / name).exists():
        return missing(name)
    container = json.loads((CONTAINERS / name).read_text())
    shown = {
        "{{.State.Running}}": "true",
        "{{.Config.Image}}": container["image"],
        "{{json .Mounts}}": json.dumps([{"Destination": path} for path in container["mounts"]]),
    }
    print(shown[template])
    return 0


def run(words: list[str]) -> int:
    values, image, command = options(words)
    assert command == ["bash"]
    [name] = values["--name"]
    if not pulled(image):
        return missing(image)
    if "--gpus" in values and not Path("/dev/nvidiactl").exists():
        print('could not select device driver "" with capabilities: [[gpu]]', file=sys.stderr)
        return 125
    env = dict(value.split("=", 1) for value in values.get("-e", []))
    mounts = [value.split(":", 1) for value in values.get("-v", [])]
    for source, target in mounts:
        bind(Path(source), Path(target))
    container = {"image": image, "env": env, "mounts": [target for _, target in mounts]}
    (CONTAINERS / name).write_text(json.dumps(container))
    print("0" * 64)
    return 0


def options(words: list[str]) -> tuple[dict[str, list[str]], str, list[str]]:
    """The options of `docker run` by their names, the image, and the command."""
    values: dict[str, list[str]] = {}
    with_value = {"--name", "-v", "-e", "--ulimit", "--gpus"}
    left = list(words)
    while left and left[0].startswith("-"):
        name = left.pop(0)
        values.setdefault(name, []).append(left.pop(0) if name in with_value else "")
    return values, left[0], left[1:]


def bind(source: Path, target: Path) -> None:
    if not source.exists():
        raise SystemExit(f"docker stand-in: {source} is to be mounted, and is not there")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    subprocess.run(["mount", "--bind", source, target], check=True)


def execute(words: list[str]) -> int:
    while words[0].startswith("-"):
        words = words[1:]
    name, command = words[0], words[1:]
    if not (CONTAINERS / name).exists():
        return missing(name)
    container = json.loads((CONTAINERS / name).read_text())
    image = {"HOME": HOME, "PATH": os.environ["PATH"], "TERM": "xterm", MARK: name}
    return os.execvpe(command[0], command, {**image, **container["env"]})


def stop(words: list[str]) -> int:
    [name] = words
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            inside = f"{MARK}={name}".encode() in environ.read_bytes().split(b"\0")
            if inside:
                os.kill(int(environ.parent.name), signal.SIGKILL)
        except OSError:
            continue
    (CONTAINERS / name).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
