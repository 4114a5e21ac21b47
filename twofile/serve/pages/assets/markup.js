// HTML that the server has made safe.
export default {
  props: { html: String },
  render() {
    return Vue.h("div", { class: "markup", innerHTML: this.html });
  },
};
