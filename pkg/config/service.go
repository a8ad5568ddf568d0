package config

import "regexp"

// The values of IoTSecurityAlerts.Deduplication.
const (
	DeduplicateAlert   = "alert"
	DeduplicateVersion = "version"
)

// IoTSecurityAlerts is the service `iot_security_alerts`.
type IoTSecurityAlerts struct {
	RequestPeriodInSeconds int               `yaml:"request_period_in_seconds" jsonschema:"minimum=1,maximum=604800,default=60" jsonschema_description:"Seconds from the start of one pull to the start of the next. (The former collector's default was 300; an alert is seen sooner with 60, and a pull without news costs one request.)"`
	StartTimeInUTC         StartTime         `yaml:"start_time_in_utc" jsonschema_description:"Alerts that started before are not read. In the past, for example 2023-10-01T09:01:00Z; without an offset it is UTC. A changed value reads everything from there again and sends it again. Absent: a day before the first start."`
	Subscriptions          []string          `yaml:"subscriptions" jsonschema:"uniqueItems=true,pattern=^[0-9A-Za-z-]+$" jsonschema_description:"Ids of the subscriptions to read. Neither these nor management_groups: all that the principal can read."`
	ManagementGroups       []string          `yaml:"management_groups" jsonschema:"uniqueItems=true,pattern=^[0-9A-Za-z_().-]{1\\,90}$" jsonschema_description:"Ids of the management groups to read."`
	OverlapInMinutes       int               `yaml:"overlap_in_minutes" jsonschema:"minimum=0,maximum=1440,default=10" jsonschema_description:"Minutes before the checkpoint that every pull reads again."`
	LookbackInMinutes      int               `yaml:"lookback_in_minutes" jsonschema:"minimum=0,maximum=129600,default=2880" jsonschema_description:"Minutes before now that are read again at start and every 30 minutes, for alerts that Azure shows late."`
	QuotaShare             float64           `yaml:"quota_share" jsonschema:"minimum=0.05,maximum=1,default=0.6" jsonschema_description:"The share that the collector takes of Resource Graph's 15 requests per 5 seconds, which the principal's other tools share."`
	Deduplication          string            `yaml:"deduplication" jsonschema:"enum=alert,enum=version,default=alert" jsonschema_description:"alert: each alert once. version: again when its content changes."`
	DeduplicationIgnore    []string          `yaml:"deduplication_ignore" jsonschema:"uniqueItems=true,minLength=1,default=properties.endTimeUtc,default=properties.extendedProperties.isNew,default=systemData" jsonschema_description:"For deduplication: version, the paths whose change does not make a new version."`
	OverrideTag            string            `yaml:"override_tag" jsonschema:"maxLength=1024,pattern=^(([a-z]|_|[0-9])+[.]){3\\,7}([a-z]|_|[0-9])+$" jsonschema_description:"The Devo table, if not edr.microsoft_defender.iot_security.alert."`
	ObfuscationData        []ObfuscationRule `yaml:"obfuscation_data" jsonschema_description:"What is masked in each event before it is stored anywhere."`
	OverrideLimitPerPage   int               `yaml:"override_limit_data_per_request" jsonschema:"minimum=1,maximum=100" jsonschema_description:"Accepted, without effect: a request asks for as many alerts as Azure gives in one answer."`
	HistoricDateUTC        string            `yaml:"historic_date_utc" jsonschema:"pattern=^\\d{4}-\\d{2}-\\d{2} \\d{2}:\\d{2}:\\d{2}$" jsonschema_description:"Accepted, without effect: start_time_in_utc says from when on alerts are read."`
	RequestsLimits         []RequestsLimit   `yaml:"requests_limits" jsonschema_description:"As requests_limits of the input; both hold."`
	Types                  []string          `yaml:"types" jsonschema_description:"Accepted, without effect: the service reads one type only."`
}

// ObfuscationRule says what is masked. Name is the path: keys, indices as text, or `*` for all.
// Without Value a type's own mask is used. StringPatterns mask only what they match within a string.
type ObfuscationRule struct {
	Name           []string         `yaml:"name" jsonschema:"required,minItems=1" jsonschema_description:"The path in the event: a key, the index in a list as text, or * for all, for each level."`
	Value          any              `yaml:"value" jsonschema_description:"What stands in the value's place: a string, number or boolean, of the type of what it replaces. Absent: ****SANITIZED****, -1, -1.0 or false."`
	StringPatterns []*regexp.Regexp `yaml:"string_patterns" jsonschema_description:"Regular expressions (RE2): only what they match within a string (the first group, if there is one) is masked."`
}
