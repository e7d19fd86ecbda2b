// Program confmap reads configurations as the OpenTelemetry Collector does, with the collector's own library: tests/confmap.rs
// compares what it makes of several layers with what it makes of gitamp's one rendered configuration.
//
// Standard input and output are lines of JSON, one case a line, in the same order:
//
//	{"layers": ["a: 1", "b: 2"], "rendered": "a: 1\nb: 2\n"}
//	{"layers": {"value": ...}, "rendered": {"error": "..."}}
//
// The layers go through the file provider and are merged in order, like `otelcol --config 1.yaml --config 2.yaml`; what is rendered goes
// through the yaml provider, and is left out when there is none. A value says its type wherever JSON does not: see typed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
)

// The longest case, in bytes of JSON.
const longestCase = 16 << 20

type question struct {
	Layers   []string `json:"layers"`
	Rendered *string  `json:"rendered"`
}

type answer struct {
	Layers   reading  `json:"layers"`
	Rendered *reading `json:"rendered,omitempty"`
}

// What the collector makes of a configuration, or why it refuses it.
type reading struct {
	Value any    `json:"value,omitempty"`
	Error string `json:"error,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	directory, err := os.MkdirTemp("", "gitamp-confmap-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)

	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, longestCase)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for lines.Scan() {
		var asked question
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		uris := make([]string, len(asked.Layers))
		for index, layer := range asked.Layers {
			path := filepath.Join(directory, strconv.Itoa(index)+".yaml")
			if err := os.WriteFile(path, []byte(layer), 0o600); err != nil {
				return err
			}
			uris[index] = "file:" + path
		}
		answered := answer{Layers: read(uris)}
		if asked.Rendered != nil {
			rendered := read([]string{"yaml:" + *asked.Rendered})
			answered.Rendered = &rendered
		}
		if err := encoder.Encode(answered); err != nil {
			return err
		}
		// The caller may wait for this answer before it asks again.
		if err := out.Flush(); err != nil {
			return err
		}
	}
	return lines.Err()
}

// Merges and expands as the collector's own command does: the same providers that resolve references in it, env as the default.
func read(uris []string) reading {
	resolver, err := confmap.NewResolver(confmap.ResolverSettings{
		URIs: uris,
		ProviderFactories: []confmap.ProviderFactory{
			envprovider.NewFactory(), fileprovider.NewFactory(), yamlprovider.NewFactory(),
		},
		DefaultScheme: "env",
	})
	if err != nil {
		return reading{Error: err.Error()}
	}
	ctx := context.Background()
	conf, err := resolver.Resolve(ctx)
	if err == nil {
		err = resolver.Shutdown(ctx)
	}
	if err != nil {
		return reading{Error: err.Error()}
	}
	return reading{Value: typed(conf.ToStringMap())}
}

// A value with its type: null, booleans, strings, lists and maps are themselves; everything else is a list of "#", type and text,
// so that 1, 1.0 and "1" differ. Maps come with sorted keys, that is what the JSON encoder does. What a map's keys were before they became
// strings is left out: the collector's decoders do not see it either.
func typed(value any) any {
	switch value := value.(type) {
	case nil, bool, string:
		return value
	case []any:
		if value == nil {
			return []any{"#", "list", "nil"}
		}
		items := make([]any, len(value))
		for index, item := range value {
			items[index] = typed(item)
		}
		return items
	case map[string]any:
		if value == nil {
			return []any{"#", "map", "nil"}
		}
		entries := make(map[string]any, len(value))
		for key, item := range value {
			entries[key] = typed(item)
		}
		return entries
	case map[any]any:
		entries := make(map[string]any, len(value))
		for key, item := range value {
			entries[fmt.Sprint(key)] = typed(item)
		}
		return entries
	case float64:
		return []any{"#", "float", strconv.FormatFloat(value, 'g', -1, 64)}
	case time.Time:
		return []any{"#", "time", value.Format(time.RFC3339Nano)}
	default:
		return []any{"#", fmt.Sprintf("%T", value), fmt.Sprint(value)}
	}
}
