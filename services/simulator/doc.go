// Package simulator stands in for what the collector talks to: Microsoft's
// login endpoint, Azure Resource Graph and a Devo endpoint.
//
// It is made to be believed by the real clients: the Azure SDK authenticates
// against [Login] and pages through [Graph], which evaluates the query it is
// sent, and a syslog sender delivers over mutual TLS to [Devo], which says
// afterwards what arrived whole, what twice and what was cut off. Every part
// can be told to misbehave in the ways the real ones do.
//
//	            +-----------------------------+
//	token  ---->| Login  --tokens-->  Graph   |<---- query, pages
//	            |                       ^     |
//	            |        Generator -----+     |      (one TLS listener)
//	            +-----------------------------+
//	frames ---->| Devo   (mutual TLS or TCP)  |----> Stats, Missing
//	            +-----------------------------+
//
// [Simulator] runs all of it in one process; tests also use the parts alone.
// Everything is in memory and nothing is kept over a restart. What is said
// here about Azure follows Microsoft's documentation and error texts seen in
// public issues; where neither says what the service does, the comment says
// so.
package simulator
