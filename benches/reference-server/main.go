// Program reference-server is the smallest server that one would write on the OpAMP server library of the OpenTelemetry project: it knows what its
// agents last said, gives each that comes the current configuration, and pushes a new one to all of them at once. gitamp is measured beside it;
// see compare.sh.
//
// POST /push on the second address takes a configuration and answers when its offers are on their way.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"

	"github.com/open-telemetry/opamp-go/protobufs"
	"github.com/open-telemetry/opamp-go/server"
	"github.com/open-telemetry/opamp-go/server/types"
)

// The largest configuration that is pushed, in bytes.
const longestConfig = 1 << 20

// An agent as its connection shows it: what any server has to know before it can offer anything.
type agent struct {
	uid          []byte
	description  *protobufs.AgentDescription
	health       *protobufs.ComponentHealth
	status       *protobufs.RemoteConfigStatus
	capabilities uint64
}

type fleet struct {
	lock   sync.Mutex
	agents map[types.Connection]*agent
	offer  *protobufs.AgentRemoteConfig
	// One push after the other, as a loop over the fleet; else one goroutine an agent.
	inTurn bool
}

func main() {
	agents := flag.String("agents", "127.0.0.1:4320", "where agents connect, at /v1/opamp")
	control := flag.String("control", "127.0.0.1:4321", "where configurations are pushed")
	inTurn := flag.Bool("in-turn", false, "offer to one agent after the other, instead of to all at the same time")
	flag.Parse()
	if err := run(*agents, *control, *inTurn); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(agents, control string, inTurn bool) error {
	fleet := &fleet{agents: make(map[types.Connection]*agent), inTurn: inTurn}
	opamp := server.New(nil)
	callbacks := types.ConnectionCallbacks{OnMessage: fleet.message, OnConnectionClose: fleet.leave}
	err := opamp.Start(server.StartSettings{
		ListenEndpoint: agents,
		ListenPath:     "/v1/opamp",
		Settings: server.Settings{Callbacks: types.Callbacks{
			OnConnecting: func(*http.Request) types.ConnectionResponse {
				return types.ConnectionResponse{Accept: true, ConnectionCallbacks: callbacks}
			},
		}},
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", control)
	if err != nil {
		return err
	}
	routes := http.NewServeMux()
	routes.HandleFunc("POST /push", fleet.push)
	listening := &http.Server{Handler: routes}
	stopped, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	context.AfterFunc(stopped, func() { _ = listening.Close() })
	if err := listening.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Takes down what the agent says, and gives it the current configuration when it reports another one.
func (f *fleet) message(_ context.Context, connection types.Connection, said *protobufs.AgentToServer) *protobufs.ServerToAgent {
	f.lock.Lock()
	defer f.lock.Unlock()
	known, isKnown := f.agents[connection]
	if !isKnown {
		known = &agent{}
		f.agents[connection] = known
	}
	known.uid = said.InstanceUid
	known.capabilities = said.Capabilities
	if said.AgentDescription != nil {
		known.description = said.AgentDescription
	}
	if said.Health != nil {
		known.health = said.Health
	}
	if said.RemoteConfigStatus != nil {
		known.status = said.RemoteConfigStatus
	}
	answer := &protobufs.ServerToAgent{InstanceUid: said.InstanceUid}
	if known.description == nil {
		answer.Flags = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)
	} else if !isKnown && f.offer != nil && !bytes.Equal(known.status.GetLastRemoteConfigHash(), f.offer.ConfigHash) {
		answer.RemoteConfig = f.offer
	}
	return answer
}

func (f *fleet) leave(connection types.Connection) {
	f.lock.Lock()
	defer f.lock.Unlock()
	delete(f.agents, connection)
}

// Makes the body of a request the current configuration, and offers it to everybody.
func (f *fleet) push(answer http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(answer, request.Body, longestConfig))
	if err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	hash := sha256.Sum256(body)
	file := &protobufs.AgentConfigObject{Body: body, ContentType: "text/yaml"}
	offer := &protobufs.AgentRemoteConfig{
		ConfigHash: hash[:],
		Config:     &protobufs.AgentConfigMap{ConfigMap: map[string]*protobufs.AgentConfigObject{"": file}},
	}
	f.lock.Lock()
	f.offer = offer
	messages := make(map[types.Connection]*protobufs.ServerToAgent, len(f.agents))
	for connection, known := range f.agents {
		messages[connection] = &protobufs.ServerToAgent{InstanceUid: known.uid, RemoteConfig: offer}
	}
	f.lock.Unlock()

	if f.inTurn {
		go func() {
			for connection, message := range messages {
				send(connection, message)
			}
		}()
	} else {
		for connection, message := range messages {
			go send(connection, message)
		}
	}
	fmt.Fprintf(answer, "%d offers\n", len(messages))
}

// A connection that cannot be written to ends by itself, and its agent comes back.
func send(connection types.Connection, message *protobufs.ServerToAgent) {
	if err := connection.Send(context.Background(), message); err != nil {
		fmt.Fprintln(os.Stderr, "not sent:", err)
	}
}
