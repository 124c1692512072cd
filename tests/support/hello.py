"""A static program that says hello and needs no compiler: its few machine instructions are written here by hand."""

from __future__ import annotations

import platform
import struct

from tests.support.images import BuiltImage, file, image_of, layer

MESSAGE = b"Hello from Docker!\n"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LOADED_AT = 0x400000
_HEADERS = 64 + 56  # ELF header and one program header


def host_architecture() -> str:
    """Return this machine's architecture as images name it."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def hello_image() -> BuiltImage:
    """Return an image for this machine with one file, /hello."""
    program = file("hello", hello_program(), mode=0o755)
    return image_of(layer(program), architecture=host_architecture(), command=["/hello"])


def hello_program(machine: str | None = None) -> bytes:
    """Return the bytes of an ELF executable that prints MESSAGE; *machine* as uname(1) has it, by default this one."""
    machine = machine or platform.machine()
    if machine == "x86_64":
        number, code = 62, _x86_64()
    elif machine == "aarch64":
        number, code = 183, _aarch64()
    else:
        raise ValueError(f"no hello for {machine}: x86_64 and aarch64 are known")
    size = _HEADERS + len(code) + len(MESSAGE)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = identity + struct.pack("<HHIQQQIHHHHHH", 2, number, 1, _LOADED_AT + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOADED_AT, _LOADED_AT, size, size, 0x10000)
    return header + segment + code + MESSAGE


def _x86_64() -> bytes:
    after_lea = (
        b"\xba" + struct.pack("<I", len(MESSAGE))  # mov edx, length
        + b"\xb8\x01\0\0\0\x0f\x05"  # mov eax, write; syscall
        + b"\xb8\x3c\0\0\0\x31\xff\x0f\x05"  # mov eax, exit; xor edi, edi; syscall
    )  # fmt: skip
    return b"\xbf\x01\0\0\0" + b"\x48\x8d\x35" + struct.pack("<i", len(after_lea)) + after_lea  # edi = 1; rsi = MESSAGE


def _aarch64() -> bytes:
    distance = 4 * 7  # from the adr to the message
    adr = 0x10000001 | (distance & 3) << 29 | (distance >> 2) << 5
    return struct.pack(
        "<8I",
        0xD2800020,  # mov x0, 1
        adr,  # adr x1, MESSAGE
        0xD2800002 | len(MESSAGE) << 5,  # mov x2, length
        0xD2800808,  # mov x8, write
        0xD4000001,  # svc 0
        0xD2800000,  # mov x0, 0
        0xD2800BA8,  # mov x8, exit
        0xD4000001,  # svc 0
    )
