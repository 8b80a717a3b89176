package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/config"
)

// services is what Kubernetes sets for Services called connection-swap-director, -director-user and connection-swap, of which
// one has an IPv6 address, and what Docker sets for a container that is linked as connection-swap-director.
var services = map[string]string{
	"DIRECTOR_SERVICE_HOST":            "10.0.0.7",
	"DIRECTOR_SERVICE_PORT":            "61000",
	"DIRECTOR_SERVICE_PORT_USER":       "61000",
	"DIRECTOR_SERVICE_PORT_MGMT_HTTP":  "61001",
	"DIRECTOR_PORT":                    "udp://10.0.0.7:61000",
	"DIRECTOR_PORT_61000_UDP":          "udp://10.0.0.7:61000",
	"DIRECTOR_PORT_61000_UDP_PROTO":    "udp",
	"DIRECTOR_PORT_61000_UDP_PORT":     "61000",
	"DIRECTOR_PORT_61000_UDP_ADDR":     "10.0.0.7",
	"DIRECTOR_PORT_61001_TCP":          "tcp://10.0.0.7:61001",
	"DIRECTOR_PORT_61001_TCP_ADDR":     "10.0.0.7",
	"DIRECTOR_USER_SERVICE_HOST":       "fd00::7",
	"DIRECTOR_USER_PORT":               "udp://[fd00::7]:61000",
	"DIRECTOR_USER_PORT_61000_UDP":     "udp://[fd00::7]:61000",
	"SERVICE_HOST":                     "10.0.0.8",
	"SERVICE_PORT":                     "80",
	"PORT":                             "tcp://10.0.0.8:80",
	"PORT_80_TCP_PROTO":                "tcp",
	"DIRECTOR_NAME":                    "/client/connection-swap-director",
	"DIRECTOR_ENV_PATH":                "/bin",
	"DIRECTOR_ENV_CONNECTION_SWAP_XYZ": "anything",
	"DIRECTOR_PORT_61000_TCP_PORT_END": "61009",
}

func TestServicesOfOthersAreIgnored(t *testing.T) {
	setenv(t, services)
	_, err := config.LoadDirector()
	require.NoError(t, err)
	_, err = config.LoadWorker()
	require.NoError(t, err)
	_, err = config.LoadClient()
	require.NoError(t, err)
	_, err = config.LoadOperator()
	require.NoError(t, err)
	var names []string
	for name := range services {
		names = append(names, config.Prefix+"_"+name)
	}
	require.ElementsMatch(t, names, config.Foreign())
}

// TestMisspeltVariablesAreNotOthers: what looks like a name of Kubernetes and has no value of it is refused.
func TestMisspeltVariablesAreNotOthers(t *testing.T) {
	for name, value := range map[string]string{
		"DIRECTOR_PORT":             "61000",
		"CLIENT_PORT":               "localhost:61000",
		"DIRECTOR_SERVICE_HOST":     "",
		"DIRECTOR_SERVICE_PORT":     "many",
		"DIRECTOR_PORT_61000_UDP":   "udp://:61000",
		"DIRECTOR_PORT_x_UDP":       "udp://10.0.0.7:61000",
		"WORKER_NAME":               "worker-a",
		"DIRECTOR_USER_PORT":        "quic://10.0.0.7:61000",
		"director_service_host":     "10.0.0.7",
		"DIRECTOR_SERVICE_HOSTNAME": "10.0.0.7",
		"DIRECTOR_TRAGET":           "10.0.0.7:61000",
	} {
		t.Run(name, func(t *testing.T) {
			setenv(t, map[string]string{name: value})
			_, err := config.LoadClient()
			var problem config.Problem
			require.ErrorAs(t, err, &problem)
			require.Equal(t, config.Prefix+"_"+name, problem.Variable)
			require.Empty(t, config.Foreign())
		})
	}
}

// TestNoVariableLooksForeign keeps the names of this project apart from those that others would overwrite.
func TestNoVariableLooksForeign(t *testing.T) {
	for _, cfg := range []any{config.Director{}, config.Worker{}, config.Client{}, config.Operator{}} {
		for _, v := range config.Variables(cfg) {
			require.NotRegexp(t, `_(SERVICE_HOST|PORT|SERVICE_PORT_.*|PORT_[0-9].*|NAME)$|_ENV_`, v.Name)
		}
	}
}
