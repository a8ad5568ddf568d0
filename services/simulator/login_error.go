package simulator

import (
	"fmt"
	"net/http"
	"time"
)

// writeLoginError answers in the shape of Microsoft's login endpoint. code is
// the AADSTS number.
func writeLoginError(w http.ResponseWriter, status int, kind string, code int, text string) {
	trace, correlation := newGUID(), newGUID()
	now := time.Now().UTC().Format("2006-01-02 15:04:05Z")
	body := marshal(map[string]any{
		"error": kind,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
			code, text, trace, correlation, now),
		"error_codes":    []int{code},
		"timestamp":      now,
		"trace_id":       trace,
		"correlation_id": correlation,
		"error_uri":      fmt.Sprintf("https://login.microsoftonline.com/error?code=%d", code),
	})
	Fault{}.write(w, status, []byte(body))
}

func tenantNotFound(w http.ResponseWriter, tenant string) {
	writeLoginError(w, http.StatusBadRequest, "invalid_tenant", 90002, "Tenant '"+tenant+"' not found. "+
		"Check to make sure you have the correct tenant ID and are signing into the correct cloud. "+
		"Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.")
}

func tenantMalformed(w http.ResponseWriter, tenant string) {
	writeLoginError(w, http.StatusBadRequest, "invalid_request", 900023,
		"Specified tenant identifier '"+tenant+"' is neither a valid DNS name, nor a valid external domain.")
}

func applicationNotFound(w http.ResponseWriter, client, tenant string) {
	writeLoginError(w, http.StatusBadRequest, "unauthorized_client", 700016, "Application with identifier '"+client+
		"' was not found in the directory '"+tenant+"'. This can happen if the application has not been installed by the "+
		"administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.")
}

func wrongSecret(w http.ResponseWriter, client string) {
	writeLoginError(w, http.StatusUnauthorized, "invalid_client", 7000215, "Invalid client secret provided. "+
		"Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '"+client+"'.")
}

func expiredSecret(w http.ResponseWriter, client string) {
	writeLoginError(w, http.StatusUnauthorized, "invalid_client", 7000222, "The provided client secret keys for app '"+client+
		"' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, "+
		"or consider using certificate credentials for added security: https://aka.ms/certCreds.")
}

func missingField(w http.ResponseWriter, field string) {
	writeLoginError(w, http.StatusBadRequest, "invalid_request", 90014,
		"The required field '"+field+"' is missing from the credential. Ensure that you have all the necessary parameters for the login request.")
}

func wrongGrant(w http.ResponseWriter, grant string) {
	writeLoginError(w, http.StatusBadRequest, "unsupported_grant_type", 70003,
		"The app requested an unsupported grant type '"+grant+"'.")
}

func wrongResource(w http.ResponseWriter, scope string) {
	writeLoginError(w, http.StatusBadRequest, "invalid_resource", 500011, "The resource principal named "+scope+
		" was not found in the tenant. This can happen if the application has not been installed by the administrator of the tenant.")
}
