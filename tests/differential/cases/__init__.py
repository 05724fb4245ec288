"""Random cases. A case is the flags of both programs and a list of steps."""

from cases.headers import gen_accept
from cases.paths import gen_path
from cases.protobuf import gen_proto
from cases.sequences import gen_restart, gen_sequence
from cases.text import gen_text

GENERATORS = {
    "text": gen_text,
    "proto": gen_proto,
    "path": gen_path,
    "accept": gen_accept,
    "sequence": gen_sequence,
    "restart": gen_restart,
}
