"""The messages of the protobuf exposition format, decoded for comparison."""

import struct

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


EXEMPLAR = {1: ("label", {1: ("name", "s"), 2: ("value", "s")}, 1), 2: ("value", "d"), 3: ("timestamp", {1: ("seconds", "v"), 2: ("nanos", "v")})}
CREATED = {1: ("seconds", "v"), 2: ("nanos", "v")}
PAIR = {1: ("name", "s"), 2: ("value", "s")}
SPAN = {1: ("offset", "v"), 2: ("length", "v")}
HISTOGRAM = {1: ("count", "v"), 2: ("sum", "d"),
             3: ("bucket", {1: ("count", "v"), 2: ("bound", "d"), 3: ("exemplar", EXEMPLAR), 4: ("countf", "d")}, 1),
             4: ("countf", "d"), 5: ("schema", "v"), 6: ("zero_threshold", "d"), 7: ("zero", "v"), 8: ("zerof", "d"),
             9: ("nspan", SPAN, 1), 10: ("ndelta", "v", 1), 11: ("ncount", "d", 1), 12: ("pspan", SPAN, 1), 13: ("pdelta", "v", 1),
             14: ("pcount", "d", 1), 15: ("created", CREATED), 16: ("exemplars", EXEMPLAR, 1)}
METRIC = {1: ("label", PAIR, 1), 2: ("gauge", {1: ("value", "d")}),
          3: ("counter", {1: ("value", "d"), 2: ("exemplar", EXEMPLAR), 3: ("created", CREATED)}),
          4: ("summary", {1: ("count", "v"), 2: ("sum", "d"), 3: ("quantile", {1: ("quantile", "d"), 2: ("value", "d")}, 1), 4: ("created", CREATED)}),
          5: ("untyped", {1: ("value", "d")}), 6: ("timestamp_ms", "v"), 7: ("histogram", HISTOGRAM)}
FAMILY = {1: ("name", "s"), 2: ("help", "s"), 3: ("type", "v"), 4: ("metric", METRIC, 1), 5: ("unit", "s")}


def varint(data, pos):
    value = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, pos


def decode(data, schema):
    """The fields of a message by name. Unknown fields are left out."""
    result, pos = {}, 0
    while pos < len(data):
        tag, pos = varint(data, pos)
        wire, number = tag & 7, tag >> 3
        if wire == VARINT:
            value, pos = varint(data, pos)
        elif wire == FIXED64:
            value, pos = data[pos:pos + 8], pos + 8
        elif wire == BYTES:
            size, pos = varint(data, pos)
            value, pos = data[pos:pos + size], pos + size
        elif wire == FIXED32:
            value, pos = data[pos:pos + 4], pos + 4
        else:
            return result
        field = schema.get(number)
        if not field:
            continue
        name, what, many = field[0], field[1], len(field) > 2
        if (what == "v" and wire not in (VARINT, BYTES)) or (what == "d" and wire not in (FIXED64, BYTES)):
            continue
        if isinstance(what, dict):
            if wire != BYTES:
                continue
            value = decode(value, what)
        elif what == "s":
            if wire != BYTES:
                continue
            value = value.decode("utf-8", "backslashreplace")
        elif what == "d" and wire == FIXED64:
            value = show_double(value)
        elif wire == BYTES:  # packed
            if not many:
                continue
            items, at = [], 0
            while at < len(value):
                if what == "d":
                    items.append(show_double(value[at:at + 8]))
                    at += 8
                else:
                    item, at = varint(value, at)
                    items.append(item)
            result.setdefault(name, []).extend(items)
            continue
        if many:
            result.setdefault(name, []).append(value)
        else:
            result[name] = value
    return result


def show_double(raw):
    number = struct.unpack("<d", raw)[0]
    return "nan" if number != number else repr(number)


def families_of(body):
    """The families of a body, as far as it can be read."""
    result, pos = [], 0
    try:
        while pos < len(body):
            size, pos = varint(body, pos)
            result.append(decode(body[pos:pos + size], FAMILY))
            pos += size
    except (IndexError, struct.error, TypeError):
        pass
    return result


def types_of(body):
    """The types of the families of a body."""
    kinds = (family.get("type", 0) for family in families_of(body))
    return [kind & 0xFFFFFFFF if isinstance(kind, int) else 99 for kind in kinds]
