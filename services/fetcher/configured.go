package fetcher

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"defenderiot/pkg/config"
	"defenderiot/pkg/fault"
	"defenderiot/pkg/obfuscation"
	"defenderiot/pkg/resourcegraph"
	"defenderiot/pkg/telemetry"
	"defenderiot/proto"
)

// ServiceName is the one service of an input.
const ServiceName = "iot_security_alerts"

// defaultTag is the Devo table of the alerts.
const defaultTag = "edr.microsoft_defender.iot_security.alert"

// Runtime is what configured fetchers get from their process. All fields but Alone are required.
type Runtime struct {
	Bus      Bus
	Logger   *slog.Logger
	Meter    metric.Meter
	Tracer   trace.Tracer
	Instance string
	Alone    bool // see Options
}

// Configured makes a Fetcher for each enabled input of c, in the order of their names. close releases
// their idle connections after they have run. Errors are of the configuration.
func Configured(c *config.Config, r Runtime) (fetchers []*Fetcher, close func(), err error) {
	var clients []*resourcegraph.Client
	close = func() {
		for _, client := range clients {
			client.Close()
		}
	}
	shared := limiter(c.Globals.RequestsLimits)
	var together *spread
	if !r.Alone { // nobody stands by
		together = &spread{each: defaultTiming().poll * 2}
	}
	for _, name := range Enabled(c) {
		input := c.Inputs[name]
		source := proto.Source{Input: name, InputID: input.ID, Service: ServiceName}
		logger := telemetry.WithThread(r.Logger, telemetry.InputProcess, pullerThread(source))
		client, err := Client(c, name, logger, r.Meter, shared, limiter(input.RequestsLimits), limiter(input.Services.IoTSecurityAlerts.RequestsLimits))
		if err != nil {
			close()
			return nil, nil, err
		}
		clients = append(clients, client)
		service, err := service(c, name)
		if err != nil {
			close()
			return nil, nil, err
		}
		service.Endpoint = client.Endpoint()
		f, err := New(Options{
			Source: source, Collector: c.Globals.Name,
			Service: service, Graph: client, Quota: client, Certificates: client.Validities, Bus: r.Bus, Logger: r.Logger, Meter: r.Meter, Tracer: r.Tracer,
			Instance: r.Instance, Alone: r.Alone,
		})
		if err != nil {
			close()
			return nil, nil, err
		}
		f.spread = together
		fetchers = append(fetchers, f)
	}
	return fetchers, close, nil
}

// Enabled lists the inputs that are switched on, in order.
func Enabled(c *config.Config) []string {
	var names []string
	for name, input := range c.Inputs {
		if input.Enabled {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// limiter keeps what one level of the configuration says.
func limiter(configured []config.RequestsLimit) *resourcegraph.Limiter {
	var limits []resourcegraph.Limit
	for _, l := range configured {
		limits = append(limits, resourcegraph.Limit{Period: l.Period.Std(), Requests: l.NumberOfRequests})
	}
	return resourcegraph.NewLimiter(limits...)
}

// Client makes the Resource Graph client of an input, within the limits if there are any; it contacts nobody.
func Client(c *config.Config, name string, logger *slog.Logger, meter metric.Meter, limits ...*resourcegraph.Limiter) (*resourcegraph.Client, error) {
	input := c.Inputs[name]
	credentials := input.Credentials
	s := resourcegraph.Settings{
		Credential: resourcegraph.Credential{
			Kind:     string(credentials.Kind()),
			TenantID: credentials.TenantID, ClientID: credentials.ClientID, ClientSecret: credentials.ClientSecret,
			CertificatePassword: credentials.ClientCertificatePassword,
		},
		Cloud:      resourcegraph.Cloud{Name: input.Cloud},
		QuotaShare: input.Services.IoTSecurityAlerts.QuotaShare, Limits: limits,
		UserAgent: "defender-iot-collector",
		Logger:    logger, Meter: meter,
	}
	if credentials.ClientCertificate != "" {
		s.Credential.CertificateFile = c.CertPath(credentials.ClientCertificate)
	}
	if m := credentials.ManagedIdentity; m != nil {
		// client_id beside managed_identity means the same as within it, if that names none.
		s.Credential.ObjectID, s.Credential.ResourceID = m.ObjectID, m.ResourceID
		if *m != (config.ManagedIdentity{}) {
			s.Credential.ClientID = m.ClientID
		}
	}
	if w := credentials.WorkloadIdentity; w != nil {
		s.Credential.TokenFile = w.TokenFile
	}
	if custom := input.CustomCloud; custom != nil {
		s.Cloud.AuthorityHost = custom.AuthorityHost
		s.Cloud.ResourceManagerEndpoint = custom.ResourceManagerEndpoint
		s.Cloud.ResourceManagerAudience = custom.ResourceManagerAudience
		s.Cloud.CAFile = c.CertPath(custom.CAFile)
	}
	client, err := resourcegraph.New(s)
	if err != nil {
		return nil, placed(c, name, err)
	}
	return client, nil
}

// placed says where in the file the setting stands that the client of an input refuses.
func placed(c *config.Config, input string, err error) error {
	named, isNamed := errors.AsType[*fault.Error](err)
	setting, isSetting := errors.AsType[*resourcegraph.SettingError](err)
	if !isNamed || !isSetting {
		return fmt.Errorf("inputs.%s: %w", input, err)
	}
	return c.Invalid(named.Code, "inputs."+input+"."+setting.Key, named.Reason, setting.Allowed).WithHint(named.Hint)
}

// Validate reports what of c's enabled inputs can never work, before anything is started; it contacts
// nobody.
func Validate(c *config.Config) error {
	var errs []error
	for _, name := range Enabled(c) {
		_, err := service(c, name)
		errs = append(errs, err)
		client, err := Client(c, name, nil, nil)
		if err == nil {
			client.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func service(c *config.Config, name string) (Service, error) {
	input := c.Inputs[name]
	alerts := input.Services.IoTSecurityAlerts
	masker, err := masker(c, name, alerts.ObfuscationData)
	if err != nil {
		return Service{}, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "collector"
	}
	tag := alerts.OverrideTag
	if tag == "" {
		tag = defaultTag
	}
	return Service{
		Period:           time.Duration(alerts.RequestPeriodInSeconds) * time.Second,
		Refresh:          refresh(input.Autoconfig),
		SetupTimeout:     time.Duration(input.Autoconfig.CreationTimeoutInSecond) * time.Second,
		Start:            alerts.StartTimeInUTC.Time,
		Subscriptions:    alerts.Subscriptions,
		ManagementGroups: alerts.ManagementGroups,
		Overlap:          time.Duration(alerts.OverlapInMinutes) * time.Minute,
		Lookback:         time.Duration(alerts.LookbackInMinutes) * time.Minute,
		Deduplication:    alerts.Deduplication,
		Ignore:           alerts.DeduplicationIgnore,
		Tag:              tag, Environment: input.Environment, Host: host,
		Masker:     masker,
		Overridden: alerts.OverrideTag != "",
		Limited:    len(input.RequestsLimits)+len(alerts.RequestsLimits) > 0,
	}, nil
}

// masker makes what obfuscation_data asks for; nil without rules.
func masker(c *config.Config, input string, configured []config.ObfuscationRule) (Masker, error) {
	if len(configured) == 0 {
		return nil, nil
	}
	rules := make([]obfuscation.Rule, len(configured))
	for i, r := range configured {
		rules[i] = obfuscation.Rule{Path: r.Name, Value: r.Value, Patterns: r.StringPatterns}
	}
	m, err := obfuscation.New(rules)
	if err != nil {
		// The error begins with the index and the key of the rule, as in "[2].value: ".
		key, why, _ := strings.Cut(err.Error(), ": ")
		why, allowed, _ := strings.Cut(why, "; allowed: ")
		return nil, c.Invalid(0, fmt.Sprintf("inputs.%s.services.%s.obfuscation_data%s", input, ServiceName, key), why, allowed)
	}
	return m, nil
}

// refresh is how often the set-up is done again; 0: never for its own sake.
func refresh(a config.Autoconfig) time.Duration {
	if !a.Enabled {
		return 0
	}
	return time.Duration(a.RefreshIntervalInSeconds) * time.Second
}
