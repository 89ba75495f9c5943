"""The Taiyuan traffic police, judged by its own page: a client that knows nothing but the tables of docs/sandbox/police-140100.md and
Python's GB 18030 codec."""

import datetime
import pathlib
import re
import socket

import pytest

from sandbox_process import ROOT, Sandbox, eventually

PAGE = (ROOT / "docs" / "sandbox" / "police-140100.md").read_text()
SYSTEM = "police-140100"


def tables(section):
    """The column tables of a section as lists of (name, width, kind)."""
    level = section.split(" ")[0]
    body = PAGE.split(f"\n{section}", 1)[1].split("\n", 1)[1]
    body = re.split(rf"^#{{1,{len(level)}}} ", body, maxsplit=1, flags=re.M)[0]
    found, open_table = [], False
    for line in body.splitlines():
        row = re.match(r"\| \d+ \| (\d+) \| `(\w+)` \| ([ATNMD])", line)
        if row and not open_table:
            found.append([])
        open_table = bool(row) or (open_table and line.startswith("|"))
        if row:
            found[-1].append((row[2], int(row[1]), row[3]))
    return found


REQUEST, REPLY = tables("## Request header")[0], tables("## Reply header")[0]
RECORD, EVIDENCE = tables("## The record group")[0], tables("## The evidence group")[0]


def packed(columns, values):
    out = b""
    for name, width, kind in columns:
        value = values.get(name, "")
        if kind in "NM":
            cell = f"{int(value or 0):0{width}d}".encode()
        else:
            cell = value.encode("gb18030").ljust(width)
        assert len(cell) == width, name
        out += cell
    return out


def unpacked(columns, data):
    values = {}
    for name, width, kind in columns:
        cell, data = data[:width], data[width:]
        assert len(cell) == width, f"{name} is cut"
        text = cell.decode("gb18030").rstrip(" ")
        values[name] = int(text) if kind in "NM" else text
    return values, data


class Police:
    """One connection, as the page describes it."""

    def __init__(self, sandbox, timeout=30):
        host, port = sandbox.addresses["police_140100"].split(":")
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.serial = 0

    def send(self, body):
        self.socket.sendall(f"{len(body):06d}".encode() + body)

    def read(self, count):
        data = b""
        while len(data) < count:
            chunk = self.socket.recv(count - len(data))
            if not chunk:
                raise ConnectionError(f"closed after {len(data)} of {count} bytes")
            data += chunk
        return data

    def frame(self):
        return self.read(int(self.read(6)))

    def request(self, code, columns, values):
        self.serial += 1
        now = datetime.datetime.now().strftime("%Y%m%d%H%M%S")
        head = {"jydm": code, "jgdm": "TYSANDBOX001", "lsh": f"{self.serial:020d}", "fssj": now, **values}
        return packed(REQUEST, head) + packed(columns, values)

    def call(self, code, **values):
        section = next(line for line in PAGE.splitlines() if line.startswith(f"### {code} "))
        found = tables(section)
        self.send(self.request(code, found[0] if found else [], values))
        head, body = unpacked(REPLY, self.frame())
        assert (head["jydm"], head["lsh"]) == (code, f"{self.serial:020d}")
        if head["fhm"] not in ("AAAA", "P001"):
            assert body == b""
            return head
        if code == "2102":
            record, body = unpacked(RECORD, body)
            head |= record
        if len(found) > 1:
            values, body = unpacked(found[1], body)
            head |= values
        if code == "2201":
            record, body = unpacked(RECORD, body)
            head |= record
        groups = {"2101": (RECORD, "bcs"), "2102": (EVIDENCE, "zjs")}.get(code)
        if groups:
            head["groups"] = []
            for _ in range(head[groups[1]]):
                group, body = unpacked(groups[0], body)
                head["groups"].append(group)
        assert body == b"", "bytes that no column explains"
        return head


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    with Sandbox(tmp_path_factory.mktemp("taiyuan")) as sandbox:
        yield sandbox


@pytest.fixture
def police(sandbox):
    return Police(sandbox)


def bill(sandbox, path):
    person = sandbox.control("GET", path, 200).json()
    record = next(r for r in person["records"] if r["region"] == "140100")
    return record["number"], record["fine_minor"] + record["late_minor"], person


def pay(police, order, record, amount, lock=""):
    return police.call(
        "2301", ddh=order, wfbh=record, sdh=lock, je=amount, jfsj="20261122093000", jfqd="WX", qdlsh="4200001234"
    )


def test_names_that_only_gb18030_writes_arrive_in_their_columns(sandbox, police):
    cast = sandbox.control("GET", "/citizens", 200).json()["citizens"]
    for index, name in [(1, "王䶮"), (2, "赵㼆"), (3, "刘𬭚")]:
        assert cast[index]["name"] == name
        assert police.call("2401", jszh=cast[index]["number"])["xm"] == name
        listed = police.call("2101", cxfs="L", jszh=cast[index]["number"], ksh=1, jls=20)
        assert {r["dsr"] for r in listed["groups"]} == {name}


def test_a_plate_has_this_systems_own_type(sandbox, police):
    person = sandbox.control("GET", "/citizens", 200).json()["citizens"][3]
    plate = next(v["plate"] for v in person["vehicles"] if v["region"] == "140100")
    listed = police.call("2101", cxfs="P", hpzl="XN", hphm=plate, ksh=1, jls=20)
    assert (listed["zjls"], listed["groups"][0]["hpzl"], listed["groups"][0]["hphm"]) == (1, "XN", plate)
    assert police.call("2101", cxfs="P", hpzl="XX", hphm=plate, ksh=1, jls=20)["zjls"] == 0
    assert police.call("2101", cxfs="P", hpzl="52", hphm=plate, ksh=1, jls=20)["fhm"] == "E102"


def test_the_slice_from_reading_to_cleared_points(sandbox, police):
    record, amount, person = bill(sandbox, "/citizens/load/1")
    assert police.call("2001")["fhm"] == "AAAA"
    detail = police.call("2102", wfbh=record)
    assert (detail["zt"], detail["zje"], len(detail["groups"])) == ("Q", amount, detail["zjs"])
    before = police.call("2401", jszh=person["number"])["ljjf"]
    lock = police.call("2201", wfbh=record, sdlsh="case-1", sdfz=30)
    assert (lock["fhm"], lock["zje"]) == ("AAAA", amount)
    assert police.call("2202", sdh=lock["sdh"], sdlsh="other")["fhm"] == "E305"
    assert police.call("2202", sdh=lock["sdh"], sdlsh="case-1")["fhm"] == "AAAA"
    lock = police.call("2201", wfbh=record, sdlsh="case-1", sdfz=30)
    assert pay(police, "o0", record, amount + 1, lock["sdh"])["fhm"] == "E304"
    paid = pay(police, "o1", record, amount, lock["sdh"])
    assert (paid["fhm"], paid["jyzt"], paid["zt"], paid["jfq"], paid["jfh"]) == ("AAAA", "S", "J", before, before - detail["wfjf"])
    again = pay(police, "o1", record, amount, lock["sdh"])
    assert {k: v for k, v in again.items() if k not in ("lsh", "clsj")} == {k: v for k, v in paid.items() if k not in ("lsh", "clsj")}
    assert pay(police, "o2", record, amount)["fhm"] == "E303"
    asked = police.call("2302", ddh="o2")
    assert (asked["jyzt"], asked["jjm"], asked["jjyy"]) == ("F", "E303", "已缴款")
    assert police.call("2302", ddh="nobody")["fhm"] == "E401"
    assert [e["state"] for e in sandbox.journal(SYSTEM) if e.get("order") == "o1"] == ["posted"]


def test_magic_payments_stay_in_process_and_then_end(sandbox, police):
    posts, amount, _ = bill(sandbox, "/citizens/magic/60")
    refuses, _, _ = bill(sandbox, "/citizens/magic/70")
    clears, _, _ = bill(sandbox, "/citizens/magic/80")
    assert pay(police, "p60", posts, amount)["fhm"] == "P001"
    assert police.call("2302", ddh="p60")["jyzt"] == "P"
    assert pay(police, "p70", refuses, amount)["fhm"] == "P001"
    paid = pay(police, "p80", clears, amount)
    assert (paid["jyzt"], paid["zt"], paid["jfq"], paid["jfh"]) == ("S", "D", 6, 6)
    assert eventually(lambda: police.call("2302", ddh="p60")["jyzt"] == "S")
    assert eventually(lambda: police.call("2302", ddh="p70")["jjm"] == "E308")
    cleared = eventually(lambda: (told := police.call("2302", ddh="p80"))["zt"] == "J" and told)
    assert cleared["jfh"] == 0


def test_requests_that_break_a_column_are_told_which(police):
    assert police.call("2201", wfbh="1", sdlsh="with blank", sdfz=30)["fhxx"] == "报文格式错误：sdlsh"
    assert police.call("2201", wfbh="1", sdlsh="k", sdfz=0)["fhxx"] == "报文格式错误：sdfz"
    assert police.call("2102", wfbh="1")["fhm"] == "E201"
    assert police.call("2401", jszh="11010519491231002X")["fhm"] == "E202"
    for code, values, expected in [("9999", {}, "E101"), ("2001", {"jgdm": "STRANGER"}, "E103"), ("2001", {"fssj": "2026"}, "E102")]:
        police.send(police.request(code, [], values))
        assert unpacked(REPLY, police.frame())[0]["fhm"] == expected


@pytest.mark.parametrize("length", [b"00004x", b"000049", b"004097", b"999999"])
def test_frames_that_are_none_close_the_connection(police, length):
    police.socket.sendall(length + b" " * 49)
    with pytest.raises(ConnectionError):
        police.frame()


def test_faults_on_the_wire(sandbox, police):
    number = sandbox.control("GET", "/citizens", 200).json()["citizens"][0]["number"]

    def raw(fault, **more):
        sandbox.stage(SYSTEM, "points", fault, **more)
        connection = Police(sandbox)
        connection.send(connection.request("2401", tables("### 2401 a driver's points")[0], {"jszh": number}))
        return connection

    clean = raw("slow", delay="1ms").frame()
    for fault in ("garble_cut", "garble_unmappable"):
        with pytest.raises(UnicodeDecodeError):
            raw(fault).frame().decode("gb18030")
    _, body = unpacked(REPLY, raw("garble_doctype").frame())
    with pytest.raises(ValueError):
        unpacked(tables("### 2401 a driver's points")[1], body)
    _, body = unpacked(REPLY, raw("garble_value").frame())
    assert unpacked(tables("### 2401 a driver's points")[1], body)[0]["jszt"] == "Z"
    twice = raw("duplicate")
    assert len(twice.frame()) == len(twice.frame()) == len(clean)
    half = raw("fault")
    with pytest.raises(ConnectionError):
        half.frame()
    endless = raw("too_long")
    assert int(endless.read(6)) == 999_999
    assert len(endless.read(200_000)) == 200_000
    for fault in ("drop_after", "drop_before"):
        with pytest.raises(ConnectionError):
            raw(fault).frame()
    for fault, code in [("busy", "E998"), ("closed", "E104"), ("error_before", "E999"), ("error_after", "E999")]:
        assert unpacked(REPLY, raw(fault).frame())[0]["fhm"] == code


def test_magic_plates_misbehave_always_or_once(sandbox, police):
    for copy, codes in [("5020", ["E999", "E999"]), ("5025", ["E999", "AAAA"])]:
        record, amount, _ = bill(sandbox, f"/citizens/magic/{copy}")
        assert [pay(police, f"m{copy}", record, amount)["fhm"] for _ in range(2)] == codes


def test_a_kill_forgets_nothing_that_was_answered(tmp_path):
    with Sandbox(tmp_path) as sandbox:
        record, amount, person = bill(sandbox, "/citizens/load/100000")
        lock = Police(sandbox).call("2201", wfbh=record, sdlsh="k", sdfz=30)
        paid = pay(Police(sandbox), "o", record, amount, lock["sdh"])
        sandbox.kill()
        sandbox.start()
        assert Police(sandbox).call("2302", ddh="o")["jflsh"] == paid["jflsh"]
        assert Police(sandbox).call("2401", jszh=person["number"])["ljjf"] == paid["jfh"]
        assert pathlib.Path(tmp_path, "sandbox", "police-140100.journal").read_text().count('"state":"posted"') == 1
