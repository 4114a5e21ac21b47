// Text that grows. What is whole comes as safe HTML, the rest as plain text; nothing that is there is made again.
export default {
  props: { source: String },
  mounted() {
    const settled = this.$refs.settled;
    const tail = this.$refs.tail.appendChild(document.createTextNode(""));
    this.stream = new EventSource(this.source);
    this.stream.onopen = () => {
      settled.replaceChildren();
      tail.data = "";
    };
    this.stream.onmessage = (event) => {
      const said = JSON.parse(event.data);
      if (said.html !== undefined) {
        settled.insertAdjacentHTML("beforeend", said.html);
        tail.data = said.tail;
      } else if (said.text !== undefined) {
        tail.appendData(said.text);
      } else if (said.end) {
        this.stream.close();
      }
      document.dispatchEvent(new CustomEvent("grown"));
    };
  },
  beforeUnmount() {
    this.stream.close();
  },
  render() {
    const parts = [Vue.h("div", { ref: "settled", class: "markup" }), Vue.h("div", { ref: "tail", class: "tail" })];
    return Vue.h("div", { class: "live" }, parts);
  },
};
