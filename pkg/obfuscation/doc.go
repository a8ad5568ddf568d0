// Package obfuscation masks values in a row of JSON by the rules of obfuscation_data.
//
// It works on the bytes: a masked value is replaced where it stands, and every other byte (order of keys,
// numbers, white space, escapes, repeated keys) is copied as it is. Rules are independent of each other. What
// cannot be masked with certainty is refused with an error and never returned in part.
//
// A rule's path is followed from the row's root, one segment for each level:
//
//	segment    at an object              at a list                  at a text, number, true or false
//	"*"        every member              every element              the path does not fit
//	"7"        the members of that key   that element               the path does not fit
//	"key"      the members of that key   the path does not fit      the path does not fit
//
// A member or an element that is not there ends the rule: a missing path is no error. Where the path does not
// fit, the row has another shape than the rule was written for: if a key or an index led there, everything in
// that place is masked; if a "*" led there, the place was one among others and is passed over.
//
// At the end of its path a rule masks the value that stands there; of an object or list, every text, number,
// true and false beneath, at any depth. Keys and null stay.
package obfuscation
