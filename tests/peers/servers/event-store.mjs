// A bounded event store: it makes the SDK's response streams resumable with Last-Event-ID.
const MAX_EVENTS = 4096;

/** Event ids are `<stream>_<sequence>`, so the stream can be read off them. */
export class MemoryEventStore {
    #events = new Map();
    #next = 1;

    async storeEvent(streamId, message) {
        const eventId = `${streamId}_${this.#next++}`;
        this.#events.set(eventId, { streamId, message });
        if (this.#events.size > MAX_EVENTS) this.#events.delete(this.#events.keys().next().value);
        return eventId;
    }

    async getStreamIdForEventId(eventId) {
        return this.#events.get(eventId)?.streamId;
    }

    async replayEventsAfter(lastEventId, { send }) {
        const streamId = this.#events.get(lastEventId)?.streamId;
        if (streamId === undefined) throw new Error('unknown event id');
        let after = false;
        for (const [eventId, event] of this.#events) {
            if (after && event.streamId === streamId && event.message.jsonrpc) await send(eventId, event.message);
            if (eventId === lastEventId) after = true;
        }
        return streamId;
    }
}
