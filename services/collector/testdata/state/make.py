"""Writes the state files of this folder with Python 3: python3 make.py"""
import hashlib, os, pickle

os.chdir(os.path.dirname(os.path.abspath(__file__)))
state = {
    "@persistence_version": 1, "start_time_in_utc": "2023-10-01T09:01:00Z",
    "last_event_time_in_utc": "2024-03-01T10:00:00.123456+00:00",
    "last_ids": ["/Subscriptions/A/alerts/One", "two"], "skip_token": None,
}
for protocol in range(6):
    with open(f"state-{protocol}.pickle", "wb") as f:
        pickle.dump(state, f, protocol)
variants = {
    "newer": {**state, "@persistence_version": 2},
    "no-version": {k: v for k, v in state.items() if k[0] != "@"},
    "future": {**state, "last_event_time_in_utc": "2999-01-01T00:00:00Z"},
    "reversed": {**state, "last_event_time_in_utc": "2023-09-01T00:00:00Z"},
    "no-position": {**state, "start_time_in_utc": None, "last_event_time_in_utc": None},
    "unparseable": {**state, "last_event_time_in_utc": "01/02/2024"},
    "epoch": {**state, "last_event_time_in_utc": 1709287200},
    "ids": {**state, "last_ids": "one"},
    "no-start": {**state, "start_time_in_utc": None, "last_ids": []},
    "skip-token": {**state, "skip_token": "abc"},
    "other-start": {**state, "start_time_in_utc": "2023-11-01 00:00:00"},
    "emergency": {"messages": [{"type": "batch", "number_of_messages": 6, "size_in_bytes": 9, "content": "[]"}]},
    "list": [1, 2],
}
for name, value in variants.items():
    with open(f"{name}.pickle", "wb") as f:
        pickle.dump(value, f)
with open("cut.pickle", "wb") as f:
    f.write(pickle.dumps(state)[:60])
print(hashlib.md5(b"defender_for_iot;23453;iot_security_alerts;None").hexdigest())
