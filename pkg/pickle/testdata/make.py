"""Writes the pickles of this folder with Python 3: python3 make.py"""
import collections, datetime, os, pickle

os.chdir(os.path.dirname(os.path.abspath(__file__)))
shared = ["/a", "/b"]
plain = {
    "none": None, "true": True, "false": False,
    "ints": [0, 255, 65535, 65536, -1, 2**31 - 1, -2**31, 2**31, 2**63 - 1, -2**63],
    "floats": [0.5, -1e300], "text": "ä\n\\u€😀", "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "empty": [{}, [], ""], "same": shared, "same again": shared, "many": list(range(1500)),
}
for protocol in range(6):
    with open(f"plain-{protocol}.pickle", "wb") as f:
        pickle.dump(plain, f, protocol)
for protocol in range(3, 6):
    with open(f"bytes-{protocol}.pickle", "wb") as f:
        pickle.dump({"b": b"\x00\xff", "long": b"x" * 300}, f, protocol)
itself = []
itself.append(itself)
deep = []
for _ in range(40):
    deep = [deep]
bomb = ["x"]
for _ in range(30):
    bomb = [bomb, bomb]
class Call:
    def __reduce__(self): return (print, ("called",))
refused = {
    "object": collections.OrderedDict(a=1), "datetime": datetime.datetime(2023, 10, 1), "call": Call(),
    "set": {1, 2}, "huge": 2**64, "keys": {1: 2}, "itself": itself, "deep": deep, "bomb": bomb,
}
for name, value in refused.items():
    with open(f"refused-{name}.pickle", "wb") as f:
        pickle.dump(value, f, 4)
with open("refused-bytes.pickle", "wb") as f:
    pickle.dump(b"\x00\xff", f, 2)
with open("refused-datetime0.pickle", "wb") as f:
    pickle.dump(datetime.datetime(2023, 10, 1), f, 0)
