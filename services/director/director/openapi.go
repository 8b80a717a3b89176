package director

import (
	_ "embed"
	"net/http"
)

// openAPI describes what the MGMT port serves over HTTP (OpenAPI 3.1). It is generated from the types of the answers and
// their comments: go test ./services/director/director -run TestOpenAPI -update
//
//go:embed openapi.json
var openAPI []byte

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(openAPI) //nolint:errcheck // the asker is gone; there is nobody to tell
}
