// A thin cover over one MQTT.js client: promises for what the library tells by callbacks, and a queue of what arrives.

import mqtt from 'mqtt'
import { CheckFailed, EVENT_SECONDS_MAX, within } from './checks.mjs'

// How clients reach the broker; a driver changes it before its checks.
export const TRANSPORT = { protocol: 'mqtt' }

// The three versions as MQTT.js calls them.
export const VERSIONS = {
  'MQTT 3.1': { protocolId: 'MQIsdp', protocolVersion: 3 },
  'MQTT 3.1.1': { protocolId: 'MQTT', protocolVersion: 4 },
  'MQTT 5.0': { protocolId: 'MQTT', protocolVersion: 5 },
}

export class Client {
  constructor(mqttClient, clientId) {
    this.mqtt = mqttClient
    this.clientId = clientId
    this.arrived = []
    this.waiting = []
    this.errors = []
    this.disconnectPacket = null
    this.gone = new Promise((resolve) => mqttClient.once('close', resolve))
    mqttClient.on('message', (topic, payload, packet) => {
      const { qos, retain, dup, messageId } = packet
      this.arrived.push({ topic, payload, qos, retain, dup, packetId: messageId, properties: packet.properties ?? {} })
      this.waiting.shift()?.()
    })
    mqttClient.on('disconnect', (packet) => (this.disconnectPacket = packet))
    mqttClient.on('error', (error) => this.errors.push(error))
  }

  // Resolves when CONNACK has come; rejects when it refuses.
  static async connect(host, port, options) {
    const mqttClient = mqtt.connect({
      host,
      port,
      ...TRANSPORT,
      reconnectPeriod: 0,
      connectTimeout: EVENT_SECONDS_MAX * 1000,
      ...options,
    })
    const client = new Client(mqttClient, options.clientId)
    const connack = new Promise((resolve, reject) => {
      mqttClient.once('connect', resolve)
      mqttClient.once('error', reject)
      mqttClient.once('close', () => reject(new CheckFailed('the broker closed the connection instead of answering CONNECT')))
    })
    client.connack = await within(EVENT_SECONDS_MAX, connack, 'no CONNACK')
    return client
  }

  // SUBSCRIBE and its SUBACK; the Reason Codes.
  async subscribe(topicFilter, qos, options = {}) {
    const packet = await this.answered(`SUBACK for ${topicFilter}`, (done) => this.mqtt.subscribe(topicFilter, { qos, ...options }, (error, _, suback) => done(error, suback)))
    return packet.granted
  }

  // UNSUBSCRIBE and its UNSUBACK; the Reason Codes (none before MQTT 5.0).
  async unsubscribe(topicFilter) {
    const packet = await this.answered(`UNSUBACK for ${topicFilter}`, (done) => this.mqtt.unsubscribe(topicFilter, done))
    return packet?.granted ?? []
  }

  // PUBLISH; for QoS above 0 resolves after its last acknowledgement.
  async publish(topic, payload, qos = 0, options = {}) {
    await this.answered(`acknowledgement of a PUBLISH to ${topic}`, (done) => this.mqtt.publish(topic, payload, { qos, ...options }, done))
  }

  // PUBLISH, and the packet of type `ack` that answers it: the library does not hand it to its callback.
  async publishFor(ack, topic, payload, qos) {
    let answer
    const note = (packet) => (answer = packet.cmd === ack ? packet : answer)
    this.mqtt.on('packetreceive', note)
    await this.publish(topic, payload, qos)
    this.mqtt.off('packetreceive', note)
    return answer
  }

  // Resolves when `start` calls back; fails when it does so with an error, not in time, or when the connection is lost meanwhile.
  answered(what, start) {
    const answer = new Promise((resolve, reject) => {
      start((error, packet) => (error ? reject(error) : resolve(packet)))
      if (this.mqtt.options.reconnectPeriod === 0) {
        this.gone.then(() => reject(new CheckFailed(`${this.clientId}: connection lost while waiting for the ${what}${this.whyLost()}`)))
      }
    })
    return within(EVENT_SECONDS_MAX, answer, `${this.clientId}: no ${what}`)
  }

  whyLost() {
    if (this.disconnectPacket) return `, DISCONNECT ${this.disconnectPacket.reasonCode}`
    return this.errors.length ? `, ${this.errors[0].message}` : ''
  }

  async receive(seconds = EVENT_SECONDS_MAX) {
    while (this.arrived.length === 0) {
      const arrival = new Promise((resolve) => this.waiting.push(resolve))
      await within(seconds, arrival, `${this.clientId} waited for a message, none came${this.whyLost()}`)
    }
    return this.arrived.shift()
  }

  arrivesWithin(seconds) {
    return this.receive(seconds).then(
      () => true,
      () => false,
    )
  }

  // All messages before the one whose payload is `marker`. This is how a check shows that something was not sent, or not twice: the
  // marker is published after it, so that the broker's silence is bounded by an event and not by a wait.
  async receiveBefore(marker) {
    const messages = []
    for (;;) {
      const message = await this.receive()
      if (message.payload.toString() === marker) return messages
      messages.push(message)
    }
  }

  // Ends the connection with a DISCONNECT.
  async leave(packet = {}) {
    await within(EVENT_SECONDS_MAX, new Promise((resolve) => this.mqtt.end(false, packet, resolve)), 'the client did not end')
  }

  // Ends the connection without a DISCONNECT, as a crash or a lost network would.
  async abort() {
    this.mqtt.stream.destroy()
    await this.closed()
  }

  // Waits until the connection is gone; the DISCONNECT of the broker, if it sent one.
  async closed() {
    await within(EVENT_SECONDS_MAX, this.gone, 'the connection was not closed')
    return this.disconnectPacket
  }
}
