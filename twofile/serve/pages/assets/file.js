// A file to choose or to drop, sent to /uploads. Emits "sent" with what the server says of it.
const { h } = Vue;

export default {
  props: { label: String, accept: String, multiple: Boolean },
  emits: ["sent"],
  data() {
    return { problem: "", sending: 0, over: false };
  },
  methods: {
    async take(files) {
      this.problem = "";
      for (const file of files) {
        this.sending += 1;
        const answer = await fetch(`/uploads?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
        const said = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
        this.sending -= 1;
        if (answer.ok) this.$emit("sent", said);
        else this.problem = `${file.name}: ${said.error}`;
      }
    },
  },
  render() {
    const input = h("input", {
      type: "file",
      accept: this.accept,
      multiple: this.multiple,
      class: "over",
      "aria-label": this.label,
      onChange: (event) => {
        this.take([...event.target.files]);
        event.target.value = "";
      },
    });
    const words = this.sending ? "Sending…" : this.label;
    return h(
      "div",
      {
        class: ["drop", { over: this.over }],
        onDragover: (event) => (event.preventDefault(), (this.over = true)),
        onDragleave: () => (this.over = false),
        onDrop: (event) => (event.preventDefault(), (this.over = false), this.take([...event.dataTransfer.files])),
      },
      [h("span", { "aria-hidden": "true" }, words), input, this.problem ? h("p", { class: "problem", role: "alert" }, this.problem) : null],
    );
  },
};
