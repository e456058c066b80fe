"""Run the system's storage tools, and keep their output if they fail."""

import subprocess


class CommandFailedError(Exception):
    """A tool ended with an exit code that its caller did not expect; the message holds its standard error."""


def run(*command: str, accept: tuple[int, ...] = (0,)) -> str:
    """Run the command to its end and return its standard output without surrounding white space."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in accept:
        output = done.stderr.strip() or done.stdout.strip()
        raise CommandFailedError(f"{' '.join(command)}: exit code {done.returncode}: {output}")
    return done.stdout.strip()
