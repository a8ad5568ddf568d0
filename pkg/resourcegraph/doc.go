// Package resourcegraph reads Defender for IoT alerts from Azure Resource Graph, one page a call.
//
// A [Client] is the Azure SDK's Resource Graph client (azidentity, armresourcegraph) with four things
// that the SDK lacks: the rows as the bytes that Azure sent (the SDK decodes numbers into float64 and
// loses digits and key order), the request quota as a brake before it is an error, a bound on time and
// size, and errors by the names and numbers of package fault:
//
//	SetupError 101  no token; the hint goes by the AADSTS number
//	ApiError NNN    Azure answered with that status (498: any 5xx); the cause is a [ResponseError]
//	PullError 301   no answer: unreachable, certificate not trusted, timed out, cut
//	PullError 302   an answer that is no page: HTML, broken JSON, no rows, larger than 64 MiB
//	configuration 6, 15   settings that cannot work; a cloud that does not have the table
//
// A request goes through these, from the outside in; the ones marked * are the SDK's:
//
//	Page ──> repeat after a plain 401 (new credential) ──> detach (keeps the body from being decoded
//	     ──> retry* (3 tries) ──> bearer token* ──> brake (quota, metrics) ──> transport (time, size)
//
// No error, log line or metric of this package contains a secret, a token or a property of a row.
package resourcegraph
