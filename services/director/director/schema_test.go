package director

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/services/director/internal/door"
	"github.com/connswap/connswap/services/director/internal/fleet"
	"github.com/connswap/connswap/services/director/internal/operations"
	"github.com/connswap/connswap/services/director/internal/session"
	"github.com/connswap/connswap/services/director/internal/shares"
	"github.com/connswap/connswap/services/director/internal/yamlfile"
	"github.com/connswap/connswap/shared/memory"
	"github.com/connswap/connswap/shared/migration"
	tokens "github.com/connswap/connswap/shared/migration/token"
	"github.com/connswap/connswap/shared/telemetry"
)

// recordOf stands for the answer to a swap.
var recordOf = migration.Record{}

// schemaNames are those of types whose own name does not say enough.
var schemaNames = map[reflect.Type]string{
	reflect.TypeFor[fleet.Snapshot]():      "Worker",
	reflect.TypeFor[door.Connection]():     "Connection",
	reflect.TypeFor[session.Snapshot]():    "Stream",
	reflect.TypeFor[session.Listed]():      "Session",
	reflect.TypeFor[migration.Record]():    "Swap",
	reflect.TypeFor[operations.Document](): "Operation",
	reflect.TypeFor[telemetry.Counts]():    "LogCounts",
	reflect.TypeFor[memory.Limit]():        "MemoryLimit",
	reflect.TypeFor[yamlfile.Status]():     "ConfigurationFile",
	reflect.TypeFor[shares.Has]():          "ShareHolder",
	reflect.TypeFor[tokens.Counts]():       "MigrationTokens",
}

// schemas makes JSON schemas (draft 2020-12) of Go types: of their JSON, with the comments as descriptions.
type schemas struct {
	names    map[reflect.Type]string
	all      map[string]any // by name
	types    map[string]reflect.Type
	comments map[string]comments // by package
	err      error
}

// comments are the words on the fields of a package's structs, by "Type.Field".
type comments map[string]string

// of returns the schema of v's type.
func (b *schemas) of(v any) any { return b.schema(reflect.TypeOf(v)) }

// components returns the schemas that others refer to.
func (b *schemas) components(t *testing.T) map[string]any {
	require.NoError(t, b.err)
	return b.all
}

func (b *schemas) schema(t reflect.Type) any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return b.schema(t.Elem())
	case reflect.Slice:
		return map[string]any{"type": "array", "items": b.schema(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": b.schema(t.Elem())}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Uint64, reflect.Uint32:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Struct:
		return b.component(t)
	case reflect.Interface:
		return map[string]any{}
	default:
		b.err = fmt.Errorf("%v has no schema yet", t)
		return nil
	}
}

// component adds the schema of a struct, and returns a reference to it.
func (b *schemas) component(t reflect.Type) any {
	name := b.name(t)
	if b.types == nil {
		b.types = map[string]reflect.Type{}
	}
	switch known := b.types[name]; known {
	case nil:
		b.types[name] = t
		properties, required := map[string]any{}, []string{}
		b.fields(t, properties, &required)
		b.all[name] = map[string]any{
			"type": "object", "additionalProperties": false, "properties": properties, "required": required,
		}
	case t:
	default:
		b.err = fmt.Errorf("%v and %v are both %s: give one of them another name in schemaNames", known, t, name)
	}
	return reference("schemas", name)
}

// fields adds the properties of a struct, and of what is embedded in it. Of a request none is required: what is missing has
// its zero value, and the answer says if that cannot be.
func (b *schemas) fields(t reflect.Type, properties map[string]any, required *[]string) {
	for field := range t.Fields() {
		tag := field.Tag.Get("json")
		name, option, _ := strings.Cut(tag, ",")
		switch {
		case field.Anonymous && tag == "":
			b.fields(field.Type, properties, required)
			continue
		case name == "-" || !field.IsExported():
			continue
		}
		property := b.schema(field.Type)
		if words := b.words(t, field.Name); words != "" {
			if property, ok := property.(map[string]any); ok {
				property["description"] = words
			}
		}
		properties[name] = property
		if option != "omitempty" && !strings.HasSuffix(t.Name(), "Request") {
			*required = append(*required, name)
		}
	}
}

// name is the type's own, without what all have in common.
func (b *schemas) name(t reflect.Type) string {
	if name := b.names[t]; name != "" {
		return name
	}
	name := strings.TrimSuffix(t.Name(), "Document")
	return strings.ToUpper(name[:1]) + name[1:]
}

// words returns the comment on a field.
func (b *schemas) words(t reflect.Type, field string) string {
	if b.comments[t.PkgPath()] == nil {
		var err error
		if b.comments[t.PkgPath()], err = readComments(t.PkgPath()); err != nil {
			b.err = err
		}
	}
	return b.comments[t.PkgPath()][t.Name()+"."+field]
}

// readComments reads the sources of a package of this repository.
func readComments(path string) (comments, error) {
	dir := filepath.Join("..", "..", "..", strings.TrimPrefix(path, "github.com/connswap/connswap/"))
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	all := comments{}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, file.Name()), nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if declared, ok := n.(*ast.TypeSpec); ok {
				all.add(declared)
			}
			return true
		})
	}
	return all, nil
}

// add notes the comments on the fields of a struct.
func (c comments) add(declared *ast.TypeSpec) {
	structure, ok := declared.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, field := range structure.Fields.List {
		words := field.Comment.Text()
		if words == "" {
			words = field.Doc.Text()
		}
		for _, name := range field.Names {
			c[declared.Name.Name+"."+name.Name] = strings.Join(strings.Fields(words), " ")
		}
	}
}
