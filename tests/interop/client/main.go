// Program client is an agent on the OpAMP client library of the OpenTelemetry project, for tests/opamp_go_client.rs: a second client
// that nobody of gitamp wrote. It has compression on, runs whatever it is offered unless that holds the word to refuse, and keeps it in a
// file, so that it still has it when it is started again.
//
// What happens to it is one JSON object a line on standard output. A line on standard input makes it ill with that message, an empty line
// well again; the end of standard input ends it, with a goodbye.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"
)

type event struct {
	Event string `json:"event"`
	Hash  string `json:"hash,omitempty"`
	Text  string `json:"text,omitempty"`
}

type agent struct {
	client client.OpAMPClient
	refuse string
	file   string

	lock    sync.Mutex
	kept    kept
	started time.Time
}

// What outlives the process.
type kept struct {
	Hash    []byte
	Config  string
	Failed  bool
	Message string
	// What it ran before it refused the last one.
	Running string
}

func main() {
	server := flag.String("server", "", "ws:// or http:// and the rest")
	name := flag.String("name", "", "the value of the label agent.name")
	uid := flag.String("uid", "", "the instance uid, 32 hexadecimal digits")
	refuse := flag.String("refuse", "\x00", "fail configurations with this text in them")
	file := flag.String("file", "", "where to keep what was offered")
	flag.Parse()
	one := &agent{refuse: *refuse, file: *file, started: time.Now()}
	if err := one.run(*server, *name, *uid); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func (a *agent) run(server, name, uid string) error {
	if err := a.remember(); err != nil {
		return err
	}
	if strings.HasPrefix(server, "ws") {
		a.client = client.NewWebSocket(quiet{})
	} else {
		a.client = client.NewHTTP(quiet{})
	}
	var id types.InstanceUid
	if read, err := hex.Decode(id[:], []byte(uid)); err != nil || read != len(id) {
		return fmt.Errorf("%q is no instance uid", uid)
	}
	describe := &protobufs.AgentDescription{
		IdentifyingAttributes:    []*protobufs.KeyValue{text("service.name", "go-client")},
		NonIdentifyingAttributes: []*protobufs.KeyValue{text("agent.name", name)},
	}
	capabilities := protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus |
		protobufs.AgentCapabilities_AgentCapabilities_AcceptsRemoteConfig |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsRemoteConfig |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsEffectiveConfig |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth |
		protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat
	if err := errors.Join(
		a.client.SetAgentDescription(describe),
		a.client.SetCapabilities(&capabilities),
		a.client.SetHealth(a.health("")),
	); err != nil {
		return err
	}
	// Polls follow one another at this pace; nobody waits half a minute in a test.
	interval := time.Second
	settings := types.StartSettings{
		OpAMPServerURL:     server,
		InstanceUid:        id,
		EnableCompression:  true,
		HeartbeatInterval:  &interval,
		RemoteConfigStatus: a.status(),
		Callbacks: types.Callbacks{
			OnConnect:       func(context.Context) { say(event{Event: "connected"}) },
			OnConnectFailed: func(_ context.Context, err error) { say(event{Event: "not connected", Text: err.Error()}) },
			OnError: func(_ context.Context, err *protobufs.ServerErrorResponse) {
				say(event{Event: "error", Text: err.String()})
			},
			OnMessage:          a.message,
			GetEffectiveConfig: a.effective,
			OnCommand: func(_ context.Context, command *protobufs.ServerToAgentCommand) error {
				say(event{Event: "command", Text: command.Type.String()})
				return nil
			},
		},
		// The library's own waits up to a minute between attempts.
		BackoffPolicy: func() types.BackoffPolicy { return constant{} },
	}
	ctx := context.Background()
	if err := a.client.Start(ctx, settings); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := a.client.SetHealth(a.health(lines.Text())); err != nil {
			return err
		}
	}
	stopping, done := context.WithTimeout(ctx, 10*time.Second)
	defer done()
	return a.client.Stop(stopping)
}

// Takes what the server sends. The library calls this one message after the other.
func (a *agent) message(ctx context.Context, message *types.MessageData) {
	offer := message.RemoteConfig
	if offer == nil {
		return
	}
	entry := offer.GetConfig().GetConfigMap()[""]
	config := string(entry.GetBody())
	say(event{Event: "offered", Hash: hex.EncodeToString(offer.ConfigHash), Text: config})
	a.report(protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLYING, offer.ConfigHash, "")

	a.lock.Lock()
	a.kept.Hash, a.kept.Config = offer.ConfigHash, config
	a.kept.Failed = strings.Contains(config, a.refuse)
	a.kept.Message = ""
	status := protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED
	if a.kept.Failed {
		status = protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED
		a.kept.Message = "the configuration holds " + a.refuse
	} else {
		a.kept.Running = config
	}
	now := a.kept
	a.lock.Unlock()

	written, err := json.Marshal(now)
	if err == nil {
		err = os.WriteFile(a.file, written, 0o600)
	}
	if err == nil {
		err = a.client.UpdateEffectiveConfig(ctx)
	}
	if err != nil {
		say(event{Event: "broken", Text: err.Error()})
	}
	a.report(status, offer.ConfigHash, now.Message)
}

func (a *agent) report(status protobufs.RemoteConfigStatuses, hash []byte, message string) {
	err := a.client.SetRemoteConfigStatus(&protobufs.RemoteConfigStatus{
		LastRemoteConfigHash: hash, Status: status, ErrorMessage: message,
	})
	if err != nil {
		say(event{Event: "broken", Text: err.Error()})
	}
}

// What it holds from an earlier life; a file that is not there yet is none.
func (a *agent) remember() error {
	written, err := os.ReadFile(a.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(written, &a.kept)
}

func (a *agent) status() *protobufs.RemoteConfigStatus {
	if a.kept.Hash == nil {
		return nil
	}
	status := protobufs.RemoteConfigStatuses_RemoteConfigStatuses_APPLIED
	if a.kept.Failed {
		status = protobufs.RemoteConfigStatuses_RemoteConfigStatuses_FAILED
	}
	return &protobufs.RemoteConfigStatus{
		LastRemoteConfigHash: a.kept.Hash, Status: status, ErrorMessage: a.kept.Message,
	}
}

func (a *agent) effective(context.Context) (*protobufs.EffectiveConfig, error) {
	a.lock.Lock()
	defer a.lock.Unlock()
	file := &protobufs.AgentConfigObject{Body: []byte(a.kept.Running), ContentType: "text/yaml"}
	files := &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigObject{"": file}}
	return proto.Clone(&protobufs.EffectiveConfig{ConfigMap: files}).(*protobufs.EffectiveConfig), nil
}

// Ill with a message, well without.
func (a *agent) health(message string) *protobufs.ComponentHealth {
	return &protobufs.ComponentHealth{
		Healthy:           message == "",
		LastError:         message,
		StartTimeUnixNano: uint64(a.started.UnixNano()),
	}
}

func text(key, value string) *protobufs.KeyValue {
	return &protobufs.KeyValue{
		Key: key, Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: value}},
	}
}

var output = struct {
	sync.Mutex
	*json.Encoder
}{Encoder: json.NewEncoder(os.Stdout)}

func say(what event) {
	output.Lock()
	defer output.Unlock()
	if err := output.Encode(what); err != nil {
		os.Exit(1)
	}
}

type constant struct{}

func (constant) NextBackOff() time.Duration { return 200 * time.Millisecond }

// The library's log goes where the test's log goes.
type quiet struct{}

func (quiet) Debugf(context.Context, string, ...any) {}
func (quiet) Errorf(_ context.Context, format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
}
