package config

import "defenderiot/pkg/secret"

// Globals is the section `globals`.
type Globals struct {
	ID                       string          `yaml:"id" jsonschema:"required,minLength=1" jsonschema_description:"Identifies this collector, for example not_used or a number of five or more digits."`
	Name                     string          `yaml:"name" jsonschema:"required,pattern=^[0-9a-zA-Z_.# -]+$" jsonschema_description:"The collector's name: letters, digits, - and _. A dot, # or space becomes _."`
	Debug                    bool            `yaml:"debug" jsonschema:"default=false" jsonschema_description:"Log at level debug."`
	Persistence              Persistence     `yaml:"persistence" jsonschema_description:"Where state is kept."`
	QueueMaxSizeInMB         int             `yaml:"queue_max_size_in_mb" jsonschema:"minimum=1,maximum=5120,default=1024" jsonschema_description:"Accepted, without effect: bus.limits bounds what waits."`
	QueueMaxSizeInMessages   int             `yaml:"queue_max_size_in_messages" jsonschema:"minimum=1,maximum=100000,default=10000" jsonschema_description:"Accepted, without effect: bus.limits bounds what waits."`
	QueueMaxElapsedTimeInSec int             `yaml:"queue_max_elapsed_time_in_sec" jsonschema:"minimum=1,maximum=600,default=60" jsonschema_description:"Accepted, without effect: events wait on disk for as long as an output is away."`
	QueueWrapMaxSize         int             `yaml:"queue_wrap_max_size_in_messages" jsonschema:"minimum=1,maximum=500,default=100" jsonschema_description:"Accepted, without effect: the size of a batch is chosen by the collector."`
	QueueGenerateMetrics     bool            `yaml:"queue_generate_metrics" jsonschema:"default=false" jsonschema_description:"Accepted, without effect: telemetry.listen always serves metrics."`
	SenderStatsPeriodInSec   int             `yaml:"sender_stats_period_in_sec" jsonschema:"minimum=60,maximum=1800,default=600" jsonschema_description:"Seconds between the senders' statistics lines; given here it overrides period_sender_stats_in_seconds of all outputs."`
	GzipThreshold            float64         `yaml:"devo_sender_threshold_for_using_gzip_in_transport_layer" jsonschema:"minimum=-1,maximum=1.1,default=1.1" jsonschema_description:"If given, it overrides threshold_for_using_gzip_in_transport_layer of every devo_platform and relay output."`
	CompressionLevel         int             `yaml:"devo_sender_compression_level" jsonschema:"minimum=1,maximum=9,default=6" jsonschema_description:"If given, it overrides compression_level of every devo_platform and relay output."`
	CompressionBufferInBytes int             `yaml:"devo_sender_compression_buffer_in_bytes" jsonschema:"minimum=1,maximum=10485760,default=51200" jsonschema_description:"If given, it overrides compression_buffer_in_bytes of every devo_platform and relay output."`
	GenerateCollectorDetails bool            `yaml:"generate_collector_details" jsonschema:"default=false" jsonschema_description:"Accepted, without effect: metrics and traces tell these details."`
	RequestsLimits           []RequestsLimit `yaml:"requests_limits" jsonschema_description:"As requests_limits of an input, for the requests of all inputs of the process together."`
}

// Persistence is `globals.persistence`. Only the folder's name has a meaning: state is kept in
// JetStream, which on the embedded server lives in that folder.
type Persistence struct {
	Type   string            `yaml:"type" jsonschema:"enum=filesystem,enum=json,enum=redis,enum=memory,default=filesystem" jsonschema_description:"filesystem (or json). The others are accepted, without effect: state is always kept in JetStream."`
	Config PersistenceConfig `yaml:"config" jsonschema_description:"Where."`
}

// PersistenceConfig is `globals.persistence.config`.
type PersistenceConfig struct {
	DirectoryName string        `yaml:"directory_name" jsonschema:"minLength=1,default=state" jsonschema_description:"The state folder, relative to the working directory."`
	Host          string        `yaml:"host" jsonschema_description:"Accepted, without effect: state is kept in JetStream, not in redis."`
	Port          int           `yaml:"port" jsonschema:"minimum=1,maximum=65535" jsonschema_description:"Accepted, without effect: state is kept in JetStream, not in redis."`
	Password      secret.String `yaml:"password" jsonschema_description:"Accepted, without effect: state is kept in JetStream, not in redis."`
	DB            int           `yaml:"db" jsonschema:"minimum=0,maximum=65535" jsonschema_description:"Accepted, without effect: state is kept in JetStream, not in redis."`
}
