// Package devo is the wire to Devo: the frame of one event, and a connection that can tell whether the
// other side took what was written.
//
// # Frames
//
// [AppendFrame] makes the line that Devo reads, `<14>DATE HOST TAG: JSON` and a line break. Frames are
// delimited by that line break alone. [Gzip] packs them into gzip members, which may stand between plain
// frames and change nothing in what follows: what counts is the bytes written.
//
// # What proves a delivery
//
// The stream has no acknowledgement of its own, so delivery is proved by how a connection ends. In
// growing strength:
//
//   - Write returned. This machine's kernel has the bytes. The peer may never get them. Measured with a
//     stalled peer: up to 6 MB, about 4,000 events, were still on this side.
//   - [Conn.Acked] covers them. The kernel of the TCP peer has them, and a load balancer counts as peer.
//     Its program may never read them. Measured: 30 to 1,900 events, whatever its receive buffer holds.
//   - EOF from the TLS layer. Nothing: a peer that sends close_notify and then closes with unread data
//     looks exactly so, with every byte acknowledged by TCP (measured). Only the raw socket shows the
//     reset that such a close causes (RFC 1122 section 4.2.2.13, RFC 2525 section 2.17), and not even
//     that once a failed write of our own has taken the error.
//   - [Confirmed]. We ended our half (close_notify, then FIN), every write succeeded, TCP acknowledged
//     every byte, and the peer then ended its half with a FIN and no reset. A TCP that closes with unread
//     data must reset, and one that has closed resets later data instead of acknowledging it; so the
//     peer's program had read all that we wrote.
//
// What [Confirmed] does not prove: that the program stored what it read; and nothing about what lies
// behind a proxy or load balancer which itself is the TCP peer. One kind of peer defeats it: one that by
// itself shuts down only its sending half, within one network delay of our own half-close, and then drops
// what it has not read. If its FIN arrives before our half-close, the result is [Broken].
//
// # States
//
//	Dial ──► open ◄─┐
//	           │ └──┴─ Write
//	           │
//	           ├─ close_notify, FIN, reset or alert from the peer; failed Write; Close ──► Broken
//	           │
//	           ▼ HalfClose: close_notify, FIN
//	        closing ◄─┐
//	           │ └────┴─ Await or HalfClose whose context ends first: Unanswered
//	           │
//	           ├─ reset, alert, failed write, bytes not acknowledged; Close ─────────────► Broken
//	           │
//	           ▼ the peer's FIN, no error, every byte acknowledged
//	        Confirmed or ConfirmedWithoutNotify
//
// [Conn.Gone] closes with the step into Confirmed, ConfirmedWithoutNotify or Broken, which
// is made once. Close releases the socket in every state and changes a proof that is there no more.
//
// # Platforms
//
// On Linux the kernel is asked for acknowledged bytes and pending errors. Elsewhere, and on connections
// that are no sockets of this machine, Acked says that it cannot tell and the proof rests on the
// handshake alone: every write succeeded and the peer's FIN came after ours without a reset. What cannot
// be half-closed at all, such as net.Pipe, is never confirmed.
package devo
