package bus

import (
	"slices"

	"defenderiot/proto"
)

// Account holds all of the collector's streams from the first day: the account is part of the path on the
// server's disk, so giving it another name would leave the data behind.
const Account = "COLLECTOR"

// The bus's users. A process that several of them would fit is a user of its own.
const (
	UserFetcher = "fetcher"
	UserDedup   = "dedup"
	UserSender  = "sender"
	// UserCollector is `collector run` on a server: the three services in one process.
	UserCollector = "collector"
	// UserOperator is the commands: it reads everything, changes positions, and settles dead letters and replays. It
	// creates and deletes no stream.
	UserOperator = "operator"
	// UserAdmin is `collector provision`.
	UserAdmin = "admin"
)

// Permission is what one user may do; everything else is refused. The subjects may hold wildcards.
type Permission struct {
	User               string
	Publish, Subscribe []string
}

// Permissions is the only declaration of who may do what on the bus. From it come the configuration of a
// nats-server ([UsersConf]) and the users of the embedded one.
//
// What a subject cannot say, a permission cannot either: who may purge a stream may purge all of it, and a name
// with a wildcard in its middle is no pattern, so a sender may use the consumer of each output.
func Permissions() []Permission {
	services := [][]string{fetcherSubjects(), dedupSubjects(), senderSubjects()}
	return []Permission{
		permission(UserFetcher, services[0]),
		permission(UserDedup, services[1]),
		permission(UserSender, services[2]),
		permission(UserCollector, append(services, statusOf(UserCollector))...),
		permission(UserOperator, operatorSubjects()),
		permission(UserAdmin, adminSubjects()),
	}
}

func permission(user string, publish ...[]string) Permission {
	subjects := slices.Concat(publish...)
	slices.Sort(subjects)
	return Permission{User: user, Publish: slices.Compact(subjects), Subscribe: []string{InboxPrefix(user) + ".>"}}
}

// InboxPrefix is what the answers to a user come in under. It differs from user to user, because who can
// subscribe to an inbox can read what is sent to it.
func InboxPrefix(user string) string { return "_INBOX_" + proto.Token(user) }

// declared are the names of the streams, buckets among them, that [Bus.Wait] waits for.
func declared() (streams []string) {
	for _, c := range append(Topology{}.streams(), Topology{}.buckets()...) {
		streams = append(streams, c.Name)
	}
	return streams
}

func fetcherSubjects() []string {
	checkpoints, hashes := proto.BucketStream(proto.BucketCheckpoints), proto.BucketStream(proto.BucketHashes)
	return slices.Concat(common(), statusOf(UserFetcher),
		[]string{proto.SubjectsRaw, deadOf(proto.StageFetcher)},
		writeBucket(proto.BucketCheckpoints), read(checkpoints), // records and leases
		read(hashes), purge(hashes), // which are known; the claims of a replaced generation
	)
}

func dedupSubjects() []string {
	return slices.Concat(common(), statusOf(UserDedup),
		take(proto.StreamRaw, proto.ConsumerDedup),
		[]string{proto.SubjectsUnique, deadOf(proto.StageDedup)},
		writeBucket(proto.BucketHashes), read(proto.BucketStream(proto.BucketHashes)),
		// The keeper: what was lost of RAW and UNIQUE, what it has seen and noticed, and the positions, which it moves back.
		read(proto.StreamRaw), read(proto.StreamDead), read(proto.BucketStream(proto.BucketCheckpoints)),
		[]string{proto.BucketSubject(proto.BucketCheckpoints, proto.WatchKey), proto.BucketSubject(proto.BucketCheckpoints, proto.LossKey),
			proto.BucketSubject(proto.BucketCheckpoints, proto.RecordPrefix+">")},
		// The keeper: acknowledge what cannot be read, at the outputs' consumers.
		[]string{"$JS.ACK." + proto.StreamUnique + ".>"},
		// The keeper: what is confirmed at every output, what jobs still need, and how old it is.
		read(proto.BucketStream(proto.BucketLedgers)), read(proto.BucketStream(proto.BucketJobs)), read(proto.StreamUnique),
		api("CONSUMER.NAMES."+proto.StreamUnique),
		purge(proto.StreamRaw), purge(proto.StreamUnique),
		// The keeper: whether a message is really gone, only a stream's leader knows.
		api("STREAM.MSG.GET."+proto.StreamRaw, "STREAM.MSG.GET."+proto.StreamUnique, "STREAM.MSG.GET."+proto.StreamDead,
			"STREAM.MSG.GET."+proto.BucketStream(proto.BucketHashes)),
	)
}

func senderSubjects() []string {
	ledgers := proto.BucketStream(proto.BucketLedgers)
	return slices.Concat(common(), statusOf(UserSender),
		take(proto.StreamUnique, "*"), // the outputs' consumers, and those of jobs
		take(proto.StreamDead, "*"),   // of jobs
		take(proto.StreamInternal, "*"),
		[]string{deadOf(proto.StageSender), "internal.metric.*"},
		writeBucket(proto.BucketLedgers), read(ledgers),
		purge(ledgers), // the records of processes that are gone
		writeBucket(proto.BucketJobs), read(proto.BucketStream(proto.BucketJobs)),
	)
}

func operatorSubjects() []string {
	jobs := proto.BucketStream(proto.BucketJobs)
	subjects := slices.Concat(common(),
		// status
		api("CONSUMER.INFO.*.*", "CONSUMER.NAMES.*", "STREAM.INFO.*"),
		// checkpoint
		writeBucket(proto.BucketCheckpoints), revisions(proto.BucketCheckpoints),
		// dead: letters go back into RAW, or are dropped
		[]string{proto.SubjectsRaw}, api("STREAM.MSG.DELETE."+proto.StreamDead), purge(proto.StreamDead),
		// reconcile --repair: claims of what is lost are released, so that the fetcher brings it again
		writeBucket(proto.BucketHashes),
		// replay, and dead letters of the sender: a job, its ledger and its consumer
		writeBucket(proto.BucketJobs), purge(jobs), revisions(proto.BucketJobs),
		writeBucket(proto.BucketLedgers), purge(proto.BucketStream(proto.BucketLedgers)),
		consumers(proto.StreamUnique), consumers(proto.StreamDead),
		api("CONSUMER.MSG.NEXT."+proto.StreamUnique+".*", "CONSUMER.MSG.NEXT."+proto.StreamDead+".*"),
	)
	for _, stream := range append(declared(), proto.BucketStream(proto.BucketStatus)) {
		subjects = append(subjects, read(stream)...)
	}
	return subjects
}

// adminSubjects are what [Bus.Provision] needs.
func adminSubjects() []string {
	ledgers, jobs := proto.BucketStream(proto.BucketLedgers), proto.BucketStream(proto.BucketJobs)
	subjects := slices.Concat(common(),
		writeBucket(proto.BucketLedgers), purge(ledgers), // an output's base record
		read(proto.StreamUnique), // where a new output begins
		// what jobs have left behind that have ended
		writeBucket(proto.BucketJobs), read(jobs), purge(jobs), consumers(proto.StreamDead),
	)
	for _, stream := range append(declared(), proto.StreamInternal, proto.BucketStream(proto.BucketStatus)) {
		subjects = append(subjects, api("STREAM.INFO."+stream, "STREAM.CREATE."+stream, "STREAM.UPDATE."+stream)...)
	}
	for _, stream := range []string{proto.StreamRaw, proto.StreamUnique, proto.StreamInternal} {
		subjects = append(subjects, consumers(stream)...)
	}
	return subjects
}

// common is what every program does: wait until everything is provisioned, tell Devo its own log, and ask what it may do.
func common() []string {
	subjects := []string{proto.SubjectInternalLines, userInfo}
	for _, stream := range declared() {
		subjects = append(subjects, api("STREAM.INFO."+stream)...)
	}
	return append(subjects, api("CONSUMER.INFO."+proto.StreamRaw+"."+proto.ConsumerDedup, "CONSUMER.INFO."+proto.StreamUnique+".*")...)
}

// api are requests to JetStream.
func api(requests ...string) []string {
	subjects := make([]string, len(requests))
	for i, r := range requests {
		subjects[i] = apiPrefix + r
	}
	return subjects
}

const apiPrefix = "$JS.API."

// take is to bind to a consumer, to pull from it and to settle what came. Acknowledgements have two forms: the
// second one, with domain and account hash, is that of servers with the feature flag js_ack_fc_v2.
func take(stream, consumer string) []string {
	name := stream + "." + consumer
	return append(api("CONSUMER.INFO."+name, "CONSUMER.MSG.NEXT."+name), "$JS.ACK."+name+".>", "$JS.ACK.*.*."+name+".>")
}

// read is to get messages without a consumer.
func read(stream string) []string {
	return api("STREAM.INFO."+stream, "DIRECT.GET."+stream, "DIRECT.GET."+stream+".>")
}

// consumers is to make and remove them. Which ones, a subject cannot say.
func consumers(stream string) []string {
	return api("CONSUMER.NAMES."+stream, "CONSUMER.INFO."+stream+".*", "CONSUMER.DELETE."+stream+".*",
		"CONSUMER.CREATE."+stream+".*", "CONSUMER.CREATE."+stream+".*.>")
}

func purge(stream string) []string { return api("STREAM.INFO."+stream, "STREAM.PURGE."+stream) }

func writeBucket(bucket string) []string { return []string{proto.BucketSubject(bucket, ">")} }

// statusOf is to write the status records of one program's processes, and no other's.
func statusOf(program string) []string {
	return []string{proto.BucketSubject(proto.BucketStatus, proto.StatusPrefix(program)+">")}
}

// revisions is to read all revisions of a bucket's keys, which the client does by a consumer for the moment.
func revisions(bucket string) []string {
	stream := proto.BucketStream(bucket)
	return append(api("CONSUMER.CREATE."+stream+".*."+proto.BucketSubject(bucket, ">"), "CONSUMER.DELETE."+stream+".*"),
		"$JS.FC."+stream+".>", "$JS.FC.*.*."+stream+".>")
}

func deadOf(stage string) string { return "alerts.dead." + proto.Token(stage) + ".>" }
